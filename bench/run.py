"""Compare the allocators behind NumPy: each contestant a process of its own, all of them taking turns in one run.

    python bench/run.py --suite convert          two-line conversions and a frame pipeline, also against out=
    python bench/run.py --suite empty            np.empty and its free, 8 B to 1 GiB
    python bench/run.py --suite chains           arithmetic on arrays that fit the caches
    python bench/run.py --suite programs         20 unmodified programs over SciPy, pandas, OpenCV, ...
    python bench/run.py --suite compiled         the same functions as NumPy runs them and as Numba compiles them
    python bench/run.py --suite core --build build/bench     the core alone, against any malloc, in C++
    python bench/run.py --suite scaling --build build/bench  the same with 1, 2, 4, 8 and 16 threads
    python bench/run.py --suite idle --build build/bench     what giving idle memory back costs others meanwhile
    python bench/run.py --suite startup          what a short script pays
    python bench/run.py --suite replay           traces of the 20 programs, without the programs

Results go to bench/results/SUITE.json (data) and SUITE.txt (the table). README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import contestants
import core
import idle
import interleaved
import scaling
import sources
import startup

import replay

Suite = Callable[[argparse.Namespace, list[contestants.Contestant], Callable[[int], Any]], tuple[dict[str, Any], str]]
HERE = Path(__file__).resolve().parent


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    suites = [*cases.SUITES, "core", "scaling", "idle", "startup", "replay"]
    parser.add_argument("--suite", choices=suites, required=True)
    parser.add_argument("--only", nargs="+", metavar="CONTESTANT", help="leave the others out")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="cases whose names contain one of these")
    parser.add_argument("--rounds", type=int, default=7, help="turns each contestant gets (default: %(default)s)")
    parser.add_argument("--batch", type=float, default=0.15, help="seconds of a turn, roughly (default: %(default)s)")
    parser.add_argument("--build", type=Path, help="core, scaling, idle: the build folder with bench/cpp in it")
    parser.add_argument("--seconds", type=float, help="core, scaling: no further turn where it would end after so long")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the result files")
    parser.add_argument("--keep", action="store_true", help="core: with --cases, the other cases' results stay")
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not arguments.batch > 0:
        parser.error("--rounds must be at least 1 and --batch above 0")
    if arguments.cases and arguments.suite in ("scaling", "idle", "startup"):
        parser.error(f"the suite {arguments.suite} has no cases to choose from")
    if arguments.suite in ("core", "scaling", "idle") and not arguments.build:
        parser.error("this suite needs --build: meson setup build/bench -Dpython=false -Dcore_bench=true, then ninja")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    everyone = contestants.everyone()
    if arguments.only and (unknown := set(arguments.only) - {contestant.name for contestant in everyone}):
        print(f"no such contestant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [c for c in everyone if not arguments.only or c.name in arguments.only]
    began = time.monotonic()
    suites: dict[str, Suite] = {
        "core": core.run,
        "scaling": scaling.run,
        "idle": idle.run,
        "startup": startup.run,
        "replay": replay.run,
    }
    suite = suites.get(arguments.suite, interleaved.run)
    rows, table = suite(arguments, chosen, sources.load("cli._progress").Progress)
    report = {
        "suite": arguments.suite,
        "machine": sources.machine(),
        "libraries": interleaved.library_versions(),
        "command": shlex.join(["python", "bench/run.py", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - began, 1),
        **rows,
    }
    print(table)
    if not arguments.dry:
        arguments.results.mkdir(parents=True, exist_ok=True)
        machine = report["machine"]
        head = f"{machine['processor']}, {machine['processors']} processors, {machine['memory_gib']} GiB, "
        head += f"{machine['system']}, {machine['libc']}, huge pages {machine['transparent_huge_pages']}\n"
        head += f"rtpool {machine['rtpool']}, NumPy {machine.get('numpy')}, Python {machine['python']}\n"
        head += f"$ {report['command']}\n\n"
        (arguments.results / f"{arguments.suite}.txt").write_text(head + table + "\n", encoding="utf-8")
        text = json.dumps(report, indent=1) + "\n"
        (arguments.results / f"{arguments.suite}.json").write_text(text, encoding="utf-8")
    return 1 if rows.get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
