"""Run NumPy's own test suites with and without `rtpool.activate()` and compare the outcome of every test.

    python tests/numpy_suite/compare.py --numpy 1.22.4 1.26.4 2.0.2 2.4.6   # an environment each, writes results/
    python tests/numpy_suite/compare.py --here --part ci --doubts           # this interpreter's NumPy, the short part

With `--doubts` the activated run comes first, and without activation only what did not pass in it is run: a test that
passes when activated needs no comparison. Which tests there are is compared in any case.

The file of a test that differs is run again by itself, three times each way; the test counts as a difference if
it never comes out alike, else as unsteady. Exit code 0: no difference; 1: at least one; 2: a version could not
be run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import environments
import outcomes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REPEATS = 3
# Each worker process has a pool of its own, and some tests allocate several GiB that they never touch: larger requests
# than this go on to NumPy's default allocator, as they do whenever a default pool is full.
POOL_LIMIT = "15%"

# "{core}" is numpy._core or, before NumPy 2, numpy.core.
PARTS = {
    "all": ["{core}", "numpy.lib", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma"],
    "memory": [
        "{core}.tests.test_api",
        "{core}.tests.test_item_selection",
        "{core}.tests.test_mem_overlap",
        "{core}.tests.test_mem_policy",
        "{core}.tests.test_regression",
        "numpy.lib.tests.test_stride_tricks",
        "numpy.fft",
    ],
    "ci": [
        "{core}.tests.test_api",
        "{core}.tests.test_array_coercion",
        "{core}.tests.test_item_selection",
        "{core}.tests.test_mem_overlap",
        "{core}.tests.test_mem_policy",
        "{core}.tests.test_multiarray",
        "{core}.tests.test_regression",
        "{core}.tests.test_shape_base",
        "numpy.lib.tests.test_arraypad",
        "numpy.lib.tests.test_arraysetops",
        "numpy.lib.tests.test_regression",
        "numpy.lib.tests.test_stride_tricks",
        "numpy.fft",
        "numpy.linalg.tests.test_regression",
        "numpy.random.tests.test_generator_mt19937_regressions",
        "numpy.ma.tests.test_old_ma",
    ],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--numpy", nargs="+", metavar="VERSION", help="NumPy versions, each in an environment of its own"
    )
    which.add_argument("--here", action="store_true", help="this interpreter with the NumPy and rtpool installed in it")
    parser.add_argument(
        "--part", choices=PARTS, default="all", help="all six packages, or a short part for every commit"
    )
    parser.add_argument(
        "--label", choices=["fast", "full"], default="fast", help="as numpy.test(): full has the slow tests too"
    )
    parser.add_argument("--python", action="append", default=[], metavar="3.X=PATH", help="an interpreter to use")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes of both runs together (above 2: pytest-xdist)"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "numpy_suite", help="environments and records")
    parser.add_argument("--results", type=Path, help="folder for the result files (default with --numpy: results/)")
    parser.add_argument(
        "--baseline-only", action="store_true", help="only run without rtpool: does the suite itself work?"
    )
    parser.add_argument(
        "--doubts", action="store_true", help="without rtpool, run only what did not pass when activated: half the time"
    )
    return parser.parse_args()


def run_suite(
    python: str,
    env: dict[str, str],
    tests: list[str],
    options: list[str],
    activate: bool,
    passed: Set[str] = frozenset(),
) -> outcomes.Run:
    """Run pytest once in a process of its own and read what the plugin recorded.

    The tests that have `passed` are collected and left out.
    """
    with tempfile.TemporaryDirectory(prefix="rtpool-suite-") as folder:
        record = Path(folder, "record")
        record.mkdir()
        left_out = Path(folder, "left_out")
        left_out.write_text("\n".join(passed), encoding="utf-8")
        env = {
            # What pytest has made of the files in one run is there for the next.
            **{name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(HERE),
            "PYTHONHASHSEED": "0",
            "RTPOOL_SUITE_RECORD": str(record),
            "RTPOOL_SUITE_ACTIVATE": "1" if activate else "0",
            "RTPOOL_SUITE_LEFT_OUT": str(left_out),
            "RTPOOL_LIMIT": POOL_LIMIT,
        }
        command = [python, "-m", "pytest", "-p", "rtpool_suite_plugin", "-p", "no:cacheprovider", "-q", "--tb=short"]
        command += ["-W", "ignore", *options, "--pyargs", *tests]
        with open(Path(folder, "output"), "w+", encoding="utf-8") as output:
            subprocess.run(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
            output.seek(0)
            text = output.read()
        run = outcomes.read(record)
        if not run.outcomes:
            raise RuntimeError(f"no test ran: {shlex.join(command)}\n{text[-3000:]}")
        return run


def settle(
    found: list[outcomes.Difference], python: str, env: dict[str, str], label: list[str]
) -> tuple[list[outcomes.Difference], list[outcomes.Difference]]:
    """Run differing tests again, alone: those that never come out alike, and the unsteady ones."""
    if not found:
        return [], []
    alike: set[str] = set()
    # One process a test file keeps the others' state out, as far as NumPy's files allow.
    modules = sorted({difference.test.split("::")[0] for difference in found})
    for _ in range(REPEATS):
        without = run_suite(python, env, modules, label, activate=False)
        activated = run_suite(python, env, modules, label, activate=True)
        still = {difference.test for difference in outcomes.differences(without, activated)}
        alike |= {difference.test for difference in found} - still
    steady = [difference for difference in found if difference.test not in alike]
    return steady, [difference for difference in found if difference.test in alike]


def versions(python: str, env: dict[str, str], with_rtpool: bool) -> dict[str, str]:
    code = "import json, platform, numpy, pytest; print(json.dumps({'numpy': numpy.__version__, "
    code += "'pytest': pytest.__version__, 'python': platform.python_version()}))"
    found: dict[str, str] = json.loads(subprocess.check_output([python, "-c", code], env=env, text=True))
    if with_rtpool:
        code = "from importlib.metadata import version; print(version('rtpool'))"
        found["rtpool"] = subprocess.check_output([python, "-c", code], env=env, text=True).strip()
    return found


def compare(python: str, env: dict[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    found = versions(python, env, not arguments.baseline_only)
    core = "numpy._core" if environments.release(found["numpy"]) >= (2, 0) else "numpy.core"
    tests = [name.format(core=core) for name in PARTS[arguments.part]]
    label = ["-m", "not slow"] if arguments.label == "fast" else []
    runs = [False] if arguments.baseline_only else [False, True]
    # Side by side: a run in one process collects once and sends nothing from process to process.
    workers = arguments.jobs // len(runs)
    options = [*label, *(["-n", str(workers)] if workers > 1 else [])]
    began = time.monotonic()
    if arguments.doubts:
        more = [run_suite(python, env, tests, options, activate=True)]
        without = run_suite(python, env, tests, label, activate=False, passed=more[0].passed())
    else:
        with ThreadPoolExecutor(len(runs) if arguments.jobs > 1 else 1) as executor:
            without, *more = executor.map(partial(run_suite, python, env, tests, options), runs)
    result: dict[str, Any] = {
        "versions": found,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "suites": tests,
        "label": arguments.label,
        "environment": {"RTPOOL_LIMIT": POOL_LIMIT},
        "without": without.counts(),
        "failed_without": sorted(without.bad()),
    }
    for activated in more:
        steady, unsteady = settle(outcomes.differences(without, activated), python, env, label)
        result["activated"] = activated.counts()
        result["pool"] = activated.pool
        result["differences"] = [difference.to_json() for difference in steady]
        result["unsteady"] = [difference.to_json() for difference in unsteady]
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def prepare(numpy_version: str, arguments: argparse.Namespace) -> environments.Environment:
    given = {}
    for text in arguments.python:
        name, _, path = text.partition("=")
        given[environments.release(name)] = path
    interpreter = environments.find_interpreter(numpy_version, given)
    environment = environments.Environment(arguments.work / f"numpy-{numpy_version}")
    environment.create(interpreter)
    environment.install(f"numpy=={numpy_version}", *environments.test_requirements(numpy_version))
    if not arguments.baseline_only:
        environment.install("--no-deps", "--force-reinstall", str(ROOT))
    return environment


def describe(result: dict[str, Any]) -> str:
    found, without = result["versions"], result["without"]
    line = f"NumPy {found['numpy']}, Python {found['python']}: {without['total']} tests"
    if "left_out" in without:
        line += f", {without['total'] - without['left_out']} run without as well"
    else:
        line += f", {without.get('passed', 0)} passed without"
    if "activated" in result:
        line += f", {result['activated'].get('passed', 0)} passed activated, {len(result['differences'])} differ"
        line += f", {len(result['unsteady'])} unsteady"
    lines = [f"{line} ({result['seconds']:.0f} s)"]
    for kind in ("differences", "unsteady"):
        for entry in result.get(kind, []):
            lines.append(f"  {kind}: {entry['test']}: {entry['without']} without, {entry['activated']} activated")
            if entry["text"]:
                lines.append(f"    {entry['text']}")
    if pool := result.get("pool"):
        served = f"{pool['allocations']:,} allocations, {pool['bytes'] / 2**30:.1f} GiB"
        lines.append(f"  the pool served {served} in {pool['processes']} processes, {pool['misuses']} misuses")
    return "\n".join(lines)


def main() -> int:
    arguments = parse_arguments()
    status = 0
    for numpy_version in arguments.numpy or [None]:
        try:
            if numpy_version is None:
                python, env = sys.executable, dict(os.environ)
                env["PATH"] = str(Path(sys.executable).parent) + os.pathsep + env.get("PATH", os.defpath)
            else:
                environment = prepare(numpy_version, arguments)
                python, env = environment.python, environment.variables()
            result = compare(python, env, arguments)
        except (environments.MissingInterpreterError, subprocess.CalledProcessError, RuntimeError) as error:
            print(f"NumPy {numpy_version or 'here'}: cannot run: {error}", file=sys.stderr)
            status = 2
            continue
        print(describe(result), flush=True)
        folder = arguments.results or (HERE / "results" if numpy_version and not arguments.baseline_only else None)
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"numpy-{result['versions']['numpy']}.json"
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        pool = result.get("pool", {"active_to_the_end": True, "misuses": 0})
        if result.get("differences") or not pool.get("active_to_the_end") or pool.get("misuses"):
            status = max(status, 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
