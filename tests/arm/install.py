"""Follow the README's line on a 64-bit Arm Debian: `pip install .` there, then rtpool's demo on an Arm kernel.

    python tests/arm/install.py [--pages 4k|16k] [--native-compiler] [--record]

The system is a Debian for arm64 in a folder (debootstrap), its programs run by qemu-user: that is good enough for a
compiler, which asks the kernel for nothing that qemu-user fakes. What was installed then runs in the emulated machine
of machine.py. The build takes half an hour on two cores with nothing else to do. With --native-compiler it is this
machine's own g++-aarch64-linux-gnu that answers to `c++` there and runs as it is: everything else is the system's, and
a tenth of the time is enough. Needs root, debootstrap, qemu-user-static, and a kernel with binfmt_misc and overlayfs.
Exit code 0: both worked; 2: it cannot be tried here. `--record` writes results/install.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import KERNELS, SUITE, Store, Unavailable, debian_mirror
from systems import System
from systems import Unavailable as NoSystem

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

BUILD = ROOT / "build" / "arm"
RESULTS = HERE / "results" / "install.json"
PACKAGES = "ca-certificates,g++,git,python3-dev,python3-venv"
QEMU = "qemu-aarch64-static"
FORMATS = Path("/proc/sys/fs/binfmt_misc")
# ELF, 64 bits, little endian, EXEC or DYN, AArch64; F: opened now, so that it is there in any root folder.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


# What a compiler of this machine needs to run in another system, at the same places: nothing there has these names.
NATIVE = ("/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/gcc-cross", "/usr/aarch64-linux-gnu")
COMPILER = "aarch64-linux-gnu-g++"


@contextlib.contextmanager
def arm_programs_run() -> Iterator[None]:
    """For as long as this lasts the kernel starts programs for Arm by qemu-user."""
    program = shutil.which(QEMU)
    if program is None:
        raise Unavailable(f"no {QEMU}: apt-get install qemu-user-static")
    if any(FORMATS.glob("qemu-aarch64*")):
        yield
        return
    if not (FORMATS / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", FORMATS], check=True)
    name = "qemu-aarch64-rtpool"
    (FORMATS / "register").write_text(f":{name}:M::{MAGIC}:{MASK}:{program}:F")
    try:
        yield
    finally:
        (FORMATS / name).write_text("-1")


def debian() -> Path:
    root = BUILD / "debian"
    ready = BUILD / "debian.ready"
    if not ready.exists():
        if shutil.which("debootstrap") is None:
            raise Unavailable("no debootstrap: apt-get install debootstrap")
        shutil.rmtree(root, ignore_errors=True)
        line = [
            "debootstrap",
            "--arch=arm64",
            "--variant=minbase",
            f"--include={PACKAGES}",
            SUITE,
            root,
            debian_mirror(),
        ]
        subprocess.run([str(part) for part in line], check=True, stdout=subprocess.DEVNULL)
        ready.touch()
    return root


def use_native_compiler(system: System) -> str:
    """`c++` in that system is this machine's from now on, with its assembler and linker; what it calls itself."""
    program = shutil.which(COMPILER)
    if program is None:
        raise Unavailable(f"no {COMPILER}: apt-get install g++-aarch64-linux-gnu")
    tools = BUILD / "native"  # in a folder that both see
    tools.mkdir(exist_ok=True)
    shutil.copy2(program, tools / "native-c++")
    for name in ("as", "ld", "ld.bfd"):
        shutil.copy2(f"/usr/bin/aarch64-linux-gnu-{name}", tools)  # there the plain names lead to these
    # A compiler looks for its parts by where it lies itself.
    links = f"cp --remove-destination {tools}/* /usr/bin && ln -sfn usr/lib64 /lib64"
    links += " && for name in c++ g++; do ln -sf /usr/bin/native-c++ /usr/local/bin/$name; done"
    subprocess.run(system.command("sh", "-c", links), check=True)
    told = subprocess.run(system.command("c++", "--version"), check=True, capture_output=True, text=True).stdout
    return f"{COMPILER} of this machine: {told.splitlines()[0]}"


def readme_line() -> str:
    """The part of the README's line that builds and installs."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"python3 -m venv \.venv && \.venv/bin/pip install \.", line):
            return found.group()
    raise SystemExit("the README has no line that installs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", choices=KERNELS, default="4k")
    parser.add_argument("--native-compiler", action="store_true", help="this machine's, so that it takes minutes")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    clone = BUILD / "clone"
    line = readme_line()
    begin = time.monotonic()
    try:
        store = Store(BUILD / "store")
        folders = NATIVE if arguments.native_compiler else ()
        with arm_programs_run(), System(debian(), BUILD, folders) as system:
            compiler = use_native_compiler(system) if arguments.native_compiler else "the system's"
            shutil.rmtree(clone, ignore_errors=True)
            subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, clone], check=True)
            code = subprocess.run(system.command("bash", "-c", line, cwd=clone), check=False).returncode
            name = system.name
    except (Unavailable, NoSystem) as reason:
        print(f"not tried: {reason}")
        return 2
    seconds = round(time.monotonic() - begin)
    print(f"{name}: {line}: exit code {code}, {seconds} s", flush=True)
    result: dict[str, object] = {
        "command": f"python tests/arm/install.py {'--native-compiler ' * arguments.native_compiler}--record",
        "date": time.strftime("%Y-%m-%d"),
        "system": name,
        "compiler": compiler,
        "line": line,
        "exit_code": code,
        "seconds": seconds,
    }
    if code == 0:
        work = BUILD / "installed"
        shutil.rmtree(work, ignore_errors=True)
        (installed,) = clone.glob(".venv/lib/python3.*/site-packages/rtpool")
        shutil.copytree(installed.parent, work / "site", ignore=shutil.ignore_patterns("numpy*", "pip*"))
        run = "PYTHONPATH=/job/site python3 -m rtpool demo && echo all done"
        lines = list(store.boot(arguments.pages, work, run, silence=1800))
        result |= {"demo": "all done" in lines, "pages": arguments.pages}
        print("\n".join(lines), flush=True)
    if arguments.record:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result.get("demo") else 1


if __name__ == "__main__":
    sys.exit(main())
