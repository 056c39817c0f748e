"""Test rtpool with musl on this machine: the core's GoogleTest suite, then the Python tests on a Python made for musl.

    python tests/musl/run.py [--core] [--python] [--tests FILE ...] [--missing] [--record]

The core is built by zig's compiler with `x86_64.ini`, GoogleTest from Debian's sources with it; a build that was ended
goes on where it was. The Python is that of musl_python.py; rtpool is installed there from the musllinux wheel of
../wheel/release.py, and NumPy and pytest from theirs. With neither option both are run.

Needs Debian on x86-64 with musl, googletest and pkg-config, and what musl_python.py names. Exit code 0: nothing failed.
`--record` writes results/musl.json, after each file of the Python tests; results of files that were not run stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import junit
from musl_python import LOADER, VERSION, build, compilers, interpreter, zig_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "musl"
RESULTS = HERE / "results" / "musl.json"

# Programs of GoogleTest that are not run, and why.
LEFT_OUT = {"schedules": "explores schedules on one thread, the same with every libc"}

TOOLS = ("meson>=1.2", "ninja", "ziglang>=0.13", "pip")
TESTS = ("numpy>=2", "pytest>=7", "pytest-timeout", "hypothesis", "meson>=1.4", "ninja")
PLATFORM = "musllinux_1_2"


def must(*command: object, env: dict[str, str] | None = None) -> None:
    print("$", *command, flush=True)
    if subprocess.run([str(part) for part in command], cwd=ROOT, env=env, check=False).returncode != 0:
        raise SystemExit(1)


def tools() -> Path:
    folder = WORK / "tools"
    python = folder / "bin" / "python"
    if not python.exists():
        must(sys.executable, "-m", "venv", folder)
        must(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *TOOLS)
    return python


def google_test(env: dict[str, str]) -> None:
    """Debian's, compiled for musl, where x86_64.ini has Meson look: that of this system is for another libc."""
    folder = WORK / "gtest"
    if (folder / "gtest_main.pc").exists():
        return
    sources = Path("/usr/src/googletest/googletest")
    if not sources.exists():
        raise SystemExit(f"no {sources}: apt-get install googletest")
    folder.mkdir(parents=True, exist_ok=True)
    compiler = ("python-zig", "c++", "-target", "x86_64-linux-musl", "-O1", "-std=c++20")
    objects = []
    for name in ("gtest-all", "gtest_main"):
        objects.append(folder / f"{name}.o")
        include = (f"-I{sources}/include", f"-I{sources}")
        must(*compiler, *include, "-c", sources / "src" / f"{name}.cc", "-o", objects[-1], env=env)
    must("python-zig", "ar", "rcs", folder / "libgtest_for_musl.a", *objects, env=env)
    content = f"Cflags: -isystem{sources}/include\nLibs: -L{folder} -lgtest_for_musl\n"
    (folder / "gtest_main.pc").write_text(f"Name: gtest\nDescription: GoogleTest\nVersion: 1\n{content}")


def core(python: Path) -> list[dict[str, Any]]:
    folder = WORK / "core"
    env = os.environ | {"PATH": f"{python.parent}:{os.environ.get('PATH', os.defpath)}"}
    for name in ("CC", "CXX"):
        env.pop(name, None)
    google_test(env)
    if not (folder / "build.ninja").exists():
        options = ("-Dpython=false", "-Dcore_tests=true", "-Dbuildtype=release", "-Dtogether=true")
        must("meson", "setup", folder, "--cross-file", HERE / "x86_64.ini", *options, env=env)
    told = subprocess.run(["meson", "introspect", "--tests", folder], env=env, capture_output=True, check=True).stdout
    tests = [test for test in json.loads(told) if test["protocol"] == "gtest" and test["name"] not in LEFT_OUT]
    programs = sorted({Path(test["cmd"][0]).relative_to(folder) for test in tests})
    must("ninja", "-C", folder, *programs, env=env)
    rows = []
    for test in tests:
        report = WORK / "report.xml"
        report.unlink(missing_ok=True)
        line = [*test["cmd"], f"--gtest_output=xml:{report}"]
        with (WORK / "core.log").open("a", encoding="utf-8") as log:
            code = subprocess.run(line, cwd=ROOT, env=env | test["env"], stdout=log, stderr=log, check=False).returncode
        cases = junit.read(report)
        rows.append({"job": test["name"], "code": code, **cases.row()})
        print(f"{test['name']}: {cases}", *cases.failed, sep="\n  ", flush=True)
    return rows


def install(tools: Path) -> Path:
    """An environment of the Python for musl, with rtpool from the wheel of the present sources and all that the tests
    need; its Python. Where that wheel is installed already it stays as it is."""
    made = interpreter() or build(zig_of(tools))
    options = ("--missing", "--no-emulator", "--python", VERSION, "--target", f"{PLATFORM}_x86_64")
    must(sys.executable, HERE.parent / "wheel" / "release.py", *options)
    number = VERSION.replace(".", "")
    (wheel,) = (ROOT / "build" / "wheel" / "dist").glob(f"*-cp{number}-cp{number}-{PLATFORM}_x86_64.whl")
    user = WORK / "user"
    python, installed = user / "bin" / "python", user / "installed-wheel"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if installed.exists() and installed.read_text(encoding="ascii") == digest:
        return python
    wheels = WORK / "wheels"
    get = (tools, "-m", "pip", "download", "-q", "--dest", wheels, "--only-binary=:all:")
    must(*get, f"--python-version={VERSION}", f"--platform={PLATFORM}_x86_64", "pip", *TESTS)
    must(made, "-m", "venv", "--clear", "--without-pip", user)
    pip = max(wheels.glob("pip-*.whl"))
    must(python, f"{pip}/pip", "install", "-q", "--no-index", f"--find-links={wheels}", wheel, *TESTS)
    installed.write_text(digest, encoding="ascii")
    return python


def test_file(python: Path, file: str, env: dict[str, str]) -> dict[str, Any]:
    report = WORK / "report.xml"
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    line = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--timeout=300"]
    with (WORK / "python.log").open("a", encoding="utf-8") as log:
        code = subprocess.run(
            [*line, f"--junitxml={report}", file], cwd=ROOT, env=env, stdout=log, stderr=log, check=False
        ).returncode
    return {"file": file, "code": code, "seconds": round(time.monotonic() - begin), **junit.read(report).row()}


def python_tests(tools: Path, places: list[str], missing: bool, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The results so far after each file; those of before in `known` stay for files that are not run."""
    python = install(tools)
    compiling = compilers(zig_of(tools), "x86_64")
    # Meson builds for the Python that it is of.
    programs = f"{python.parent}:{Path(compiling['CC']).parent}:{os.environ.get('PATH', os.defpath)}"
    # Programs that tests make run on the musl of that Python: zig's run-time library wants functions newer than this
    # system's may be.
    compiling |= {name: f"{compiling[name]} -Wl,--dynamic-linker={LOADER}" for name in ("CC", "CXX")}
    env = os.environ | compiling | {"PATH": programs, "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import sys, numpy; print(sys.version.split()[0], numpy.__version__)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rows = {row["file"]: row for row in known.get("files", [])}
    folders = [ROOT / place for place in places]
    chosen = [file for place in folders for file in ([place] if place.is_file() else place.rglob("test_*.py"))]
    for path in sorted(chosen):
        file = path.relative_to(ROOT).as_posix()
        if missing and file in rows and not rows[file]["failed"]:
            continue
        rows[file] = row = test_file(python, file, env)
        counts = f"{row['passed']} passed, {len(row['failed'])} failed, {len(row['skipped'])} skipped"
        print(f"{file}: {counts}, {row['seconds']} s", *row["failed"], sep="\n  ", flush=True)
        yield {
            "date": time.strftime("%Y-%m-%d"),
            "python": told[0],
            "numpy": told[1],
            "libc": musl_version(),
            "passed": sum(row["passed"] for row in rows.values()),
            "failed": sum(len(row["failed"]) for row in rows.values()),
            "skipped": sum(len(row["skipped"]) for row in rows.values()),
            "files": [rows[name] for name in sorted(rows)],
        }


def musl_version() -> str:
    """What the loader says of itself when it has no program to load."""
    told = subprocess.run([LOADER], capture_output=True, text=True, check=False).stderr
    return " ".join(line.removeprefix("Version ") for line in told.splitlines() if line.startswith(("musl", "Version")))


def record(results: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", action="store_true")
    parser.add_argument("--python", action="store_true")
    parser.add_argument("--tests", nargs="+", default=["tests/python"])
    parser.add_argument("--missing", action="store_true", help="files that have not passed by now")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    both = arguments.core == arguments.python
    WORK.mkdir(parents=True, exist_ok=True)
    python = tools()
    results = dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}
    results |= {"command": "python tests/musl/run.py --record"}
    failed = False
    if both or arguments.core:
        results["core"] = {"date": time.strftime("%Y-%m-%d"), "left_out": LEFT_OUT, "programs": core(python)}
        failed |= any(row["failed"] or row["code"] for row in results["core"]["programs"])
        if arguments.record:
            record(results)
    if both or arguments.python:
        known = results.get("python", {})
        for now in python_tests(python, arguments.tests, arguments.missing, known):
            results["python"] = now
            if arguments.record:
                record(results)
        failed |= bool(results.get("python", {}).get("failed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
