"""Run the Python tests on Python 3.10 to 3.15 with NumPy 1.22 to the newest, in every pair that can be had here.

    python tests/interpreters/matrix.py [--python 3.10 3.13t] [--part binding | loops] [--systems FOLDER] [--record]

Interpreters are looked for on PATH, among those of pyenv and uv, and in other Debian systems on this machine: root
folders with Python and g++ below FOLDER, as debootstrap makes them (`systems.py`; root only). "3.13t" is the
free-threaded build, also that of tests/free_threaded. For each, rtpool is built once, against NumPy 2, and tested
with several NumPys that have wheels for it. A pair that cannot be had is listed with the reason. Exit code 0: no pair
failed; 1: one did; 2: nothing could be run. `--record` writes results/matrix.json; pairs run before stay in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import junit
from find import Impossible, Interpreter, find
from systems import System, Unavailable, known

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
    "3.13t": (NEWEST,),
    "3.14": (NEWEST,),
    "3.14t": (NEWEST,),
    "3.15": (NEWEST,),
}
# Parts of the tests, by the names of their files. What `binding` leaves out depends neither on the version of Python
# nor on that of NumPy, or takes minutes; `loops` is what must not fault: real-time sections and Python's objects.
PARTS = {
    "all": ("",),
    "binding": ("activation", "asyncio", "copy", "debug", "default_pool", "handler", "lifetime", "parallel", "plan",
                "pool", "recording", "refusals", "shared", "sizes", "stats", "trace"),
    "loops": ("collector", "durations", "fault_origins", "objects", "prepare", "realtime", "steady_state"),
}  # fmt: skip
BUILD = ("meson-python>=0.18", "meson>=1.2", "ninja")
TEST = ("pytest>=7", "pytest-timeout", "hypothesis")


class Environment:
    """A Python of one version with rtpool built for it."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.folder = WORK / interpreter.version
        self.python = self.folder / "bin" / "python"
        self.log = WORK / f"{interpreter.version}.log"
        WORK.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.run(interpreter.path, "-m", "venv", self.folder) != 0:
            raise Impossible(f"Python {interpreter.version} makes no virtual environment")
        # The newest that has a wheel: some would want a toolchain of their own.
        self.install(*BUILD, *TEST, "numpy>=2", options=("--only-binary=:all:",))
        build = ("--no-build-isolation", "--no-deps", f"--config-settings=build-dir={self.folder / 'build'}")
        self.install(ROOT, options=build)

    def run(self, *command: object) -> int:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(map(str, command))}\n")
            file.flush()
            # The build looks for meson and ninja on PATH.
            path = "/usr/local/bin:/usr/bin:/bin" if self.interpreter.system else os.environ.get("PATH", os.defpath)
            line = self.interpreter.command("env", f"PATH={self.folder / 'bin'}:{path}", *command)
            return subprocess.run(line, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode

    def install(self, *what: object, options: tuple[str, ...] = ()) -> None:
        pip = (self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options)
        if self.run(*pip, *what) != 0:
            said = " ".join("this tree" if str(each) == str(ROOT) else str(each) for each in what)
            raise Impossible(f"pip cannot install {said} (see {self.log.relative_to(ROOT)})")

    def versions(self) -> list[str]:
        """Of Python and of NumPy."""
        code = "import sys, numpy; print(sys.version.split()[0], numpy.__version__)"
        line = self.interpreter.command(self.python, "-c", code)
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.split()


def test(environment: Environment, numpy: str, part: str) -> dict[str, Any]:
    """Test with one NumPy; the counts and versions."""
    wanted = ("--upgrade", "numpy") if numpy == NEWEST else (f"numpy=={numpy}",)
    environment.install(*wanted, options=("--only-binary=numpy",))
    answer = environment.versions()
    if len(answer) != 2:
        raise Impossible(f"NumPy {numpy} cannot be imported")
    everything = sorted((ROOT / "tests" / "python").rglob("test_*.py"))
    files = [file for file in everything if file.stem.removeprefix("test_").startswith(PARTS[part])]
    report = WORK / f"{environment.interpreter.version}.xml"
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    pytest = (environment.python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--timeout=300")
    environment.run(*pytest, f"--junitxml={report}", *files)
    if not report.exists():
        raise Impossible("pytest wrote no report")
    cases = junit.read(report)
    free_threaded = environment.interpreter.version.endswith("t")
    return {
        "python": answer[0] + ("t" if free_threaded else ""),
        "numpy": answer[1],
        "system": environment.interpreter.where,
        "part": part,
        "passed": cases.passed,
        "failed": cases.failed,
        "skipped": len(cases.skipped),
        "seconds": round(time.monotonic() - begin),
        "date": time.strftime("%Y-%m-%d"),
    }


def record(rows: list[dict[str, Any]], missing: list[dict[str, str]], asked: list[str]) -> None:
    """Add to what stands there: a part run anew replaces what it was, and so does why something could not be."""
    stands = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"run": [], "not_run": []}
    pairs = {(row["python"], row["numpy"], row["part"]): row for row in [*stands["run"], *rows]}

    def place(row: dict[str, Any]) -> tuple[list[int], str, str]:
        numbers = re.findall(r"\d+", f"{row['python']} {row['numpy']}")
        return [int(number) for number in numbers], row["python"], row["part"]

    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "command": "python tests/interpreters/matrix.py --record",
        "run": sorted(pairs.values(), key=place),
        "not_run": [*(row for row in stands["not_run"] if row["python"] not in asked), *missing],
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--numpy", nargs="+", help="only these of the NumPys")
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--systems", type=Path, help="where root folders of other systems lie")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    with contextlib.ExitStack() as stack:
        systems: list[System] = []
        for root in known(arguments.systems):
            try:
                systems.append(stack.enter_context(System(root, ROOT)))
            except Unavailable as reason:
                print(f"left out: {reason}", flush=True)
        for version in arguments.python:
            numpys = [numpy for numpy in PAIRS[version] if arguments.numpy is None or numpy in arguments.numpy]
            try:
                environment = Environment(find(version, systems))
            except Impossible as reason:
                missing.append({"python": version, "numpy": ", ".join(numpys), "reason": str(reason)})
                print(f"Python {version}: not run: {reason}", flush=True)
                continue
            for numpy in numpys:
                try:
                    rows.append(test(environment, numpy, arguments.part))
                except Impossible as reason:
                    missing.append({"python": version, "numpy": numpy, "reason": str(reason)})
                    print(f"Python {version}, NumPy {numpy}: not run: {reason}", flush=True)
                    continue
                row = rows[-1]
                counts = f"{row['passed']} passed, {len(row['failed'])} failed, {row['skipped']} skipped"
                told = f"Python {row['python']}, NumPy {row['numpy']}: {counts}, {row['seconds']} s"
                print(told, *row["failed"], sep="\n  ", flush=True)
                if arguments.record:
                    record(rows, missing, arguments.python)
    if arguments.record and (rows or missing):
        record(rows, missing, arguments.python)
    return 1 if any(row["failed"] for row in rows) else 0 if rows else 2


if __name__ == "__main__":
    sys.exit(main())
