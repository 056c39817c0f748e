"""Free-threaded Python: build one, build rtpool for it, run the Python tests, and compare two threads with one.

    python tests/free_threaded/run.py [--version 3.14] [--python /path/to/python3.14t] [--tests FILE ...]
                                      [--no-scaling] [--record]

Without --python, CPython is built with `--disable-gil` from a source package of Debian (python3.13 of trixie,
python3.14 of forky) into build/free-threaded. It takes some minutes on two cores, once a version, and needs apt-get, a
C compiler, and the headers of zlib, OpenSSL and libffi. The system's own list of sources is not touched.

Checks that importing rtpool leaves the GIL off and warns of nothing. The tests run there as everywhere; those of
`test_parallel.py` have threads use one of everything at once. `scaling.py` then compares two threads with one; it wants
a machine with nothing else to do, and may be run later by itself, with build/free-threaded/venv/bin/python. Exit code
0: all passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "free-threaded"
# Where Debian has the source of a version.
SUITES = {"3.13": "trixie", "3.14": "forky"}
SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
VERSIONS = "import platform, numpy; print(platform.python_version(), numpy.__version__)"
PACKAGES = ("numpy>=2.1", "meson-python>=0.18", "meson>=1.2", "ninja", "pytest>=7", "hypothesis")


def must(*command: object, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def fetch_source(version: str) -> Path:
    """The source tree, by apt-get with a list and state of its own, so that signatures are checked."""
    if not shutil.which("apt-get"):
        raise SystemExit("apt-get is missing; give a free-threaded interpreter by --python")
    suite, source = SUITES[version], f"python{version}"
    apt = WORK / "apt"
    for folder in ("etc", "lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "etc" / "source.sources").write_text(SOURCES.format(suite=suite), encoding="ascii")
    options = [
        f"-oDir::Etc::SourceParts={apt / 'etc'}",
        "-oDir::Etc::SourceList=/dev/null",
        f"-oDir::State::Lists={apt / 'lists'}",
        f"-oDir::Cache={apt / 'cache'}",
    ]
    must("apt-get", *options, "update")
    must("apt-get", *options, "source", "--download-only", f"{source}/{suite}", cwd=WORK)
    (archive,) = WORK.glob(f"{source}_*.orig.tar.xz")
    must("tar", "--extract", "--file", archive, cwd=WORK)
    return next(path for path in WORK.glob(f"Python-{version}.*") if path.is_dir())


def build_python(version: str) -> Path:
    prefix = WORK / "python"
    python = prefix / "bin" / f"python{version}t"
    if not python.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        source = fetch_source(version)
        must("./configure", "--disable-gil", f"--prefix={prefix}", "--with-ensurepip=install", cwd=source)
        must("make", f"-j{os.cpu_count()}", cwd=source)
        must("make", "install", cwd=source)
    return python


def run_tests(python: Path, files: list[str]) -> dict[str, object]:
    report = WORK / "report.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped: dict[str, int] = {}
    for case in cases:
        if (reason := case.find("skipped")) is not None:
            text = str(reason.get("message"))
            skipped[text] = skipped.get(text, 0) + 1
    passed = len(cases) - len(failed) - sum(skipped.values())
    print(f"{passed} passed, {len(failed)} failed, {sum(skipped.values())} skipped", *failed, sep="\n  ")
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": versions[0],
        "numpy": versions[1],
        "files": files,
        "passed": passed,
        "failed": failed,
        "skipped": sum(skipped.values()),
        "skipped_why": skipped,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", choices=SUITES, default="3.13")
    parser.add_argument("--python", type=Path)
    parser.add_argument("--tests", nargs="+", default=["tests/python"])
    parser.add_argument("--no-scaling", action="store_true", help="the tests alone")
    parser.add_argument("--record", action="store_true", help="write results/")
    arguments = parser.parse_args()
    interpreter = arguments.python or build_python(arguments.version)
    WORK.mkdir(parents=True, exist_ok=True)
    must(interpreter, "-m", "venv", "--clear", WORK / "venv")
    python = WORK / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    must(*pip, "--only-binary=:all:", *PACKAGES)  # the newest that has a wheel: no toolchain beyond rtpool's own
    must(*pip, "--no-build-isolation", "--no-deps", f"--config-settings=build-dir={WORK / 'rtpool'}", ROOT)
    must(python, "-W", "error", "-c", "import sys, rtpool; assert not sys._is_gil_enabled()", cwd=WORK)
    tests = run_tests(python, arguments.tests)
    if arguments.record:
        results = HERE / "results" / "free_threaded.json"
        results.parent.mkdir(exist_ok=True)
        known = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
        version = ".".join(str(tests["python"]).split(".")[:2])
        known |= {
            "command": "python tests/free_threaded/run.py --record",
            "tests": known.get("tests", {}) | {version: tests},
        }
        results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    if not arguments.no_scaling:
        must(python, HERE / "scaling.py", *(["--record"] if arguments.record else []))
    return 1 if tests["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
