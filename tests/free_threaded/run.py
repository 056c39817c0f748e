"""Free-threaded Python: build one, build rtpool for it, run the Python tests, and compare two threads with one.

    python tests/free_threaded/run.py [--version 3.14] [--tests FILE ...] [--no-scaling] [--record]
    python tests/free_threaded/run.py --python /path/to/python3.13t

Without --python, CPython is built with `--disable-gil` from the source package of Debian (3.13: of trixie; 3.14: of
forky) into build/free-threaded, where tests/interpreters finds it as well. It takes some minutes on two cores, once,
and needs apt-get, a C compiler, and the headers of zlib, OpenSSL and libffi. The system's own list of sources is not
touched.

Checks that importing rtpool leaves the GIL off and warns of nothing. The tests run there as everywhere; those of
`test_parallel.py` have threads use one of everything at once. `scaling.py` then compares two threads with one; it wants
a machine with nothing else to do, and may be run later by itself, with build/free-threaded/venv/bin/python. Exit code
0: all passed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import junit
from debian_source import fetch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "free-threaded"
SUITES = {"3.13": "trixie", "3.14": "forky"}
VERSIONS = "import platform, numpy; print(platform.python_version(), numpy.__version__)"
PACKAGES = ("numpy>=2.1", "meson-python>=0.18", "meson>=1.4", "ninja", "pytest>=7", "hypothesis")
EXTENSIONS = ("cython>=3.1", "pybind11>=2.13", "nanobind>=2.2")  # for the examples of the C interface


def must(*command: object, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build_python(version: str) -> Path:
    prefix = WORK / "python"
    python = prefix / "bin" / f"python{version}t"
    if not python.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        source = fetch(f"python{version}", WORK, SUITES[version])
        must("./configure", "--disable-gil", f"--prefix={prefix}", "--with-ensurepip=install", cwd=source)
        must("make", f"-j{os.cpu_count()}", cwd=source)
        must("make", "altinstall", cwd=source)
    return python


def run_tests(python: Path, files: list[str]) -> dict[str, object]:
    report = WORK / "report.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    cases = junit.read(report)
    print(cases, *cases.failed, sep="\n  ")
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": versions[0],
        "numpy": versions[1],
        "files": files,
        "passed": cases.passed,
        "failed": cases.failed,
        "skipped": len(cases.skipped),
        "skipped_why": dict(Counter(reason for _, reason in cases.skipped)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--version", choices=SUITES, default="3.13", help="which to build")
    parser.add_argument("--build-only", action="store_true", help="the interpreter alone, for tests/interpreters")
    parser.add_argument("--tests", nargs="+", default=["tests/python"])
    parser.add_argument("--no-scaling", action="store_true", help="the tests alone")
    parser.add_argument("--record", action="store_true", help="write results/")
    arguments = parser.parse_args()
    interpreter = arguments.python or build_python(arguments.version)
    if arguments.build_only:
        print(interpreter)
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    must(interpreter, "-m", "venv", "--clear", WORK / "venv")
    python = WORK / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # The newest that has a wheel: no toolchain beyond rtpool's own.
    must(*pip, "--only-binary=:all:", *PACKAGES, *EXTENSIONS)
    must(*pip, "--no-build-isolation", "--no-deps", f"--config-settings=build-dir={WORK / 'rtpool'}", ROOT)
    must(python, "-W", "error", "-c", "import sys, rtpool; assert not sys._is_gil_enabled()", cwd=WORK)
    tests = run_tests(python, arguments.tests)
    if arguments.record:
        results = HERE / "results" / "free_threaded.json"
        results.parent.mkdir(exist_ok=True)
        known = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
        name = ".".join(str(tests["python"]).split(".")[:2])
        if arguments.tests != parser.get_default("tests"):
            name += f", {' '.join(arguments.tests)}"
        known |= {
            "command": "python tests/free_threaded/run.py --record",
            "tests": known.get("tests", {}) | {name: tests},
        }
        results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    if not arguments.no_scaling:
        must(python, HERE / "scaling.py", *(["--record"] if arguments.record else []))
    return 1 if tests["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
