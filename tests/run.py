"""All tests, C++ and Python, by one command on a machine with g++, Python and nothing else prepared:

    python3 tests/run.py

It makes an environment of its own in build/tests, installs rtpool there from this tree, and runs: the
GoogleTest suite of the core as released, under AddressSanitizer with UndefinedBehaviorSanitizer, and under
ThreadSanitizer; the Python tests; ruff; mypy; a part of NumPy's own test suite with and without
activation; each fuzz target for some seconds; and builds the documentation. What cannot run is skipped, with the
reason. The last line is `N passed, N failed, N skipped`; the exit code is 0 if nothing failed.

    python3 tests/run.py --quick     a first answer in three minutes: the core as released, most Python tests
    python3 tests/run.py --only python lint     some steps
    python3 tests/run.py --skip asan tsan numpy     all but some

Steps run side by side; all step aside (`nice`) for the Python tests with real-time loops among them. Each command has a
deadline (bounded.py), each Python test as well: what hangs is named and shown with its stacks, and the whole ends
within half an hour. A machine that is too slow for that: `--minutes 120`. What the steps do stands in tests/runner.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from runner import native, package
from runner.commands import MINUTES, Clock, Runner
from runner.environment import environment
from runner.outcome import Failed, Result, Skipped, grouped

# As many at a time as there are processors and one more, each as soon as there is room for it.
STEPS: dict[str, Callable[[Runner], Result]] = {
    "python": package.python,
    "programs": package.programs,
    "core": native.core,
    "tsan": native.tsan,
    "asan": native.asan,
    "fuzz": native.fuzz,
    "numpy": package.numpy,
    "docs": package.docs,
    "lint": package.lint,
}
QUICK = ("python", "programs", "core")


def perform(runner: Runner, step: Callable[[Runner], Result]) -> Result:
    name = runner.step
    runner.log.unlink(missing_ok=True)
    began = time.monotonic()
    problem = ""
    try:
        result = step(runner)
        result.failures = [f"{name}: {failure}" for failure in result.failures]
    except Skipped as reason:
        result = Result(skips=[f"{name}: {reason}"])
    except Failed as reason:
        result = Result(failures=[f"{name}: {reason}"])
    if result.failures:
        problem = f"\n--- the end of {runner.log} ---\n{runner.tail()}\n---"
    took = f"{time.monotonic() - began:6.1f} s, {runner.processor_time:6.1f} s of processors"
    print(f"{name:<12}{took}" + ("" if step is environment else f"  {result}") + problem, flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"of: {' '.join(STEPS)}")
    parser.add_argument("--skip", nargs="+", choices=STEPS, metavar="STEP", default=[], help="all but these")
    parser.add_argument("--quick", action="store_true", help="a first answer: the shorter tests of " + ", ".join(QUICK))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="when all has ended, or is ended (%(default)g)")
    arguments = parser.parse_args()
    chosen = arguments.only or (QUICK if arguments.quick else STEPS)
    wanted = [name for name in STEPS if name in chosen and name not in arguments.skip]
    clock = Clock(arguments.minutes)
    total = perform(Runner("environment", clock, arguments.quick), environment)
    if not total.failures:
        with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as executor:
            steps = []
            for name in wanted:
                prefix = () if name == "python" else ("nice", "-n", "10")
                runner = Runner(name, clock, arguments.quick, prefix)
                steps.append(executor.submit(perform, runner, STEPS[name]))
            try:
                wait(steps)
            except KeyboardInterrupt:
                clock.stop()
            for step in steps:
                total.add(step.result())
        total.skips += [f"{name}: left out by option" for name in STEPS if name not in wanted]
    for line in grouped(total.skips):
        print(f"skipped: {line}")
    for line in total.failures:
        print(f"failed: {line}")
    print(total)
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
