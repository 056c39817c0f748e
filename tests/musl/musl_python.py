"""A CPython for musl on this machine: built once from Debian's sources with zig's compiler, into build/musl/python.

    python tests/musl/musl_python.py [--zig PATH]

It takes some minutes on two cores. Needs apt-get, make, autoconf, automake, libltdl-dev, musl (`apt-get install musl`:
the loader) and zig (`pip install ziglang`). It has zlib and ctypes (libffi), each built for musl as well, and neither
OpenSSL nor pip.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
from debian_source import fetch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "musl"
PREFIX = WORK / "python"
LOADER = Path("/lib/ld-musl-x86_64.so.1")
VERSION = "3.13"


def interpreter() -> Path | None:
    """The one that was built, if it was and starts."""
    python = PREFIX / "bin" / f"python{VERSION}"
    if not python.exists():
        return None
    told = subprocess.run([python, "-c", "import zlib, ctypes"], capture_output=True, check=False)
    return python if told.returncode == 0 else None


def environment(zig: str) -> dict[str, str]:
    target = f"{zig} cc -target x86_64-linux-musl -dynamic"
    tools = {"CC": target, "CXX": target.replace(" cc ", " c++ "), "AR": f"{zig} ar", "RANLIB": f"{zig} ranlib"}
    depends = WORK / "depends"
    tools |= {"PKG_CONFIG_LIBDIR": f"{depends}/lib/pkgconfig", "CFLAGS": "-O2"}
    return os.environ | tools


def must(*command: object, cwd: Path, env: dict[str, str]) -> None:
    print("$", *command, flush=True)
    with (WORK / "log.txt").open("a", encoding="utf-8") as log:
        done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise SystemExit(f"failed, see {(WORK / 'log.txt').relative_to(ROOT)}")


def build(zig: str) -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    if not LOADER.exists():
        raise SystemExit(f"no {LOADER}: apt-get install musl")
    env = environment(zig)
    depends = WORK / "depends"
    jobs = f"-j{os.cpu_count()}"
    zlib = fetch("zlib", WORK)
    must("./configure", f"--prefix={depends}", "--static", cwd=zlib, env=env)
    must("make", jobs, "install", cwd=zlib, env=env)
    ffi = fetch("libffi", WORK)
    if not (ffi / "Makefile.in").exists():
        must("autoreconf", "-fi", cwd=ffi, env=env)
    must("./configure", f"--prefix={depends}", "--disable-shared", "--with-pic", "--disable-docs", cwd=ffi, env=env)
    must("make", jobs, "install", cwd=ffi, env=env)
    python = fetch(f"python{VERSION}", WORK)
    flags = env | {"CPPFLAGS": f"-I{depends}/include", "LDFLAGS": f"-L{depends}/lib -L{depends}/lib64"}
    must("./configure", f"--prefix={PREFIX}", "--without-ensurepip", cwd=python, env=flags)
    must("make", jobs, cwd=python, env=flags)
    must("make", "install", cwd=python, env=flags)
    made = interpreter()
    if made is None:
        raise SystemExit("the Python that was built does not start")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zig", default=f"{sys.executable} -m ziglang")
    arguments = parser.parse_args()
    print(interpreter() or build(arguments.zig))


if __name__ == "__main__":
    main()
