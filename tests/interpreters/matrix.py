"""Run the Python tests on Python 3.10 to 3.14 with NumPy 1.22 to the newest, in every pair that can be had here.

    python tests/interpreters/matrix.py [--python 3.10 3.13] [--part binding] [--record]

Interpreters are looked for on PATH and among those of pyenv and uv. For each, rtpool is built once, against NumPy 2,
and tested with several NumPys that have wheels for it. A pair that cannot be had is listed with the reason. Exit code
0: no pair failed; 1: one did; 2: nothing could be run. `--record` writes results/matrix.json; pairs run before
stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "interpreters"
RESULTS = HERE / "results" / "matrix.json"
NEWEST = "newest"

# Which NumPys are asked for; 1.22 is the oldest rtpool knows, others are the first that had wheels for that Python.
PAIRS: dict[str, tuple[str, ...]] = {
    "3.10": ("1.22.4", "1.26.4", NEWEST),
    "3.11": ("1.23.5", "1.26.4", NEWEST),
    "3.12": ("1.26.4", "2.0.2", NEWEST),
    "3.13": ("2.1.3", NEWEST),
    "3.14": (NEWEST,),
}
# What `binding` leaves out neither depends on the version of Python nor of NumPy, or takes minutes.
BINDING = ("activation", "asyncio", "default_pool", "handler", "lifetime", "objects", "parallel", "plan", "pool",
           "shared", "sizes", "stats")  # fmt: skip
BUILD = ("meson-python>=0.18", "meson>=1.2", "ninja")
TEST = ("pytest>=7", "hypothesis")


class Impossible(Exception):
    """This cannot be had here; the text says why."""


def run(*command: object, log: Path, **environment: str) -> int:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        line = [str(part) for part in command]
        return subprocess.run(
            line, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment, check=False
        ).returncode


def find_interpreter(version: str) -> Path:
    """The interpreter of a version that can really be started and make environments."""
    home = Path.home()
    places = [Path(found) for found in [shutil.which(f"python{version}")] if found]
    for pattern in (f".pyenv/versions/{version}.*/bin/python{version}",
                    f".local/share/uv/python/cpython-{version}.*/bin/python{version}"):  # fmt: skip
        places += sorted(home.glob(pattern), reverse=True)
    for place in places:
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return place
    raise Impossible(f"no Python {version} on PATH or among those of pyenv and uv")


def install(python: Path, log: Path, *what: object, options: tuple[str, ...] = ()) -> None:
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options)
    if run(*pip, *what, log=log) != 0:
        raise Impossible(f"pip cannot install {' '.join(map(str, what))} (see {log.relative_to(ROOT)})")


def prepare(version: str) -> tuple[Path, Path]:
    """An environment with rtpool in it: its Python, and the log."""
    interpreter = find_interpreter(version)
    folder = WORK / version
    log = WORK / f"{version}.log"
    WORK.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if run(interpreter, "-m", "venv", folder, log=log) != 0:
        raise Impossible(f"Python {version} makes no virtual environment")
    python = folder / "bin" / "python"
    install(python, log, *BUILD, *TEST, "numpy>=2", options=("--only-binary=numpy",))
    build = ("--no-build-isolation", "--no-deps", f"--config-settings=build-dir={folder / 'build'}")
    install(python, log, ROOT, options=build)
    return python, log


def test(python: Path, log: Path, numpy: str, part: str) -> dict[str, Any]:
    """Test with one NumPy; the counts and versions."""
    wanted = ("--upgrade", "numpy") if numpy == NEWEST else (f"numpy=={numpy}",)
    install(python, log, *wanted, options=("--only-binary=numpy",))
    code = "import sys, numpy; print(sys.version.split()[0], numpy.__version__)"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.split()
    if len(answer) != 2:
        raise Impossible(f"NumPy {numpy} cannot be imported")
    files = sorted((ROOT / "tests" / "python").rglob("test_*.py"))
    if part == "binding":
        files = [file for file in files if file.stem.removeprefix("test_").startswith(BINDING)]
    report = WORK / "report.xml"
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files, log=log)
    if not report.exists():
        raise Impossible("pytest wrote no report")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [f"{case.get('classname')}::{case.get('name')}" for case in cases
              if case.find("failure") is not None or case.find("error") is not None]  # fmt: skip
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "python": answer[0],
        "numpy": answer[1],
        "part": part,
        "passed": len(cases) - len(failed) - skipped,
        "failed": failed,
        "skipped": skipped,
        "seconds": round(time.monotonic() - begin),
        "date": time.strftime("%Y-%m-%d"),
    }


def record(rows: list[dict[str, Any]], missing: list[dict[str, str]]) -> None:
    """Add to what stands there; a pair that was run anew replaces what was."""
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["run"] if RESULTS.exists() else []
    pairs = {(row["python"], row["numpy"]): row for row in [*known, *rows]}

    def place(row: dict[str, Any]) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", f"{row['python']} {row['numpy']}")]

    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "command": "python tests/interpreters/matrix.py --record",
        "run": sorted(pairs.values(), key=place),
        "not_run": missing,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--numpy", nargs="+", help="only these of the NumPys")
    parser.add_argument("--part", choices=("all", "binding"), default="all")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    for version in arguments.python:
        numpys = [numpy for numpy in PAIRS[version] if arguments.numpy is None or numpy in arguments.numpy]
        try:
            python, log = prepare(version)
        except Impossible as reason:
            missing.append({"python": version, "numpy": ", ".join(numpys), "reason": str(reason)})
            print(f"Python {version}: not run: {reason}", flush=True)
            continue
        for numpy in numpys:
            try:
                rows.append(test(python, log, numpy, arguments.part))
            except Impossible as reason:
                missing.append({"python": version, "numpy": numpy, "reason": str(reason)})
                print(f"Python {version}, NumPy {numpy}: not run: {reason}", flush=True)
                continue
            row = rows[-1]
            print(f"Python {row['python']}, NumPy {row['numpy']}: {row['passed']} passed, {len(row['failed'])} failed,"
                  f" {row['skipped']} skipped, {row['seconds']} s", *row["failed"], sep="\n  ", flush=True)  # fmt: skip
            if arguments.record:
                record(rows, missing)
    if arguments.record and (rows or missing):
        record(rows, missing)
    return 1 if any(row["failed"] for row in rows) else 0 if rows else 2


if __name__ == "__main__":
    sys.exit(main())
