"""The steps in C++: the core as it is released, under sanitizers, and fuzzed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from runner import builds
from runner.commands import ROOT, Runner
from runner.outcome import Failed, Result, ended_otherwise, read_junit


def _googletest(runner: Runner, build: Path, *selection: str, variables: dict[str, str] | None = None) -> Result:
    """Run the GoogleTest programs of a build folder."""
    report = build / "meson-logs" / "testlog.junit.xml"
    report.unlink(missing_ok=True)
    code = runner.run("meson", "test", "-C", str(build), "--print-errorlogs", *selection, variables=variables)
    if code != 0 and not report.exists():
        raise Failed(f"meson test: exit code {code}")
    result = read_junit(report)
    if code != 0:
        result.failures += ended_otherwise(build / "meson-logs" / "testlog.json")
    if code != 0 and not result.failures:
        raise Failed(f"meson test: exit code {code}")
    return result


def core(runner: Runner) -> Result:
    """Run the core's tests as it is released, and its schedules; the core's benchmark must build."""
    builds.find_googletest(runner)
    build = builds.configure_core(runner)
    if not runner.quick:  # else `meson test` builds what it runs
        runner.must("build", "ninja", "-C", str(build))
    return _googletest(runner, build, *(["--suite", "core"] if runner.quick else []))


def asan(runner: Runner) -> Result:
    """Run the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer, with all its own checks."""
    build, _ = builds.watched(runner)
    variables = {
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    return _googletest(runner, build, variables=variables)


def tsan(runner: Runner) -> Result:
    """Run the core's tests under ThreadSanitizer."""
    return _googletest(runner, builds.races(runner), variables={"TSAN_OPTIONS": "exitcode=66:second_deadlock_stack=1"})


def fuzz(runner: Runner) -> Result:
    """Fuzz each target for some seconds, or only replay the corpus where clang's libFuzzer is missing."""
    build, guided = builds.watched(runner)
    result = Result()
    variables = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}

    def target(name: str) -> bool:
        command = [str(build / "tests" / "fuzz" / f"{name}_fuzz")]
        if guided:
            # New inputs go to a folder of their own, as do findings.
            (build / "corpus" / name).mkdir(parents=True, exist_ok=True)
            command += ["-max_total_time=10", "-max_len=1500", "-timeout=60", f"-artifact_prefix={build}/{name}-"]
            command.append(str(build / "corpus" / name))
        command.append(str(ROOT / "tests" / "fuzz" / "corpus" / name))
        return runner.run(*command, variables=variables) == 0

    def plan() -> bool:
        command = [runner.python, "tests/fuzz/plan_fuzz.py", "--engine", "hypothesis", "--seconds", "8"]
        return runner.run(*command, "--corpus", "tests/fuzz/corpus/plan") == 0

    jobs: dict[str, Callable[[], bool]] = {name: partial(target, name) for name in ("pool", "pages", "shared")}
    jobs["plan"] = plan
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for name, good in zip(jobs, executor.map(lambda job: job(), jobs.values()), strict=True):
            if good:
                result.passed += 1
            else:
                result.failures.append(f"{name}: see the log")
            if not guided and name != "plan":
                hint = "on Debian and Ubuntu: apt-get install clang libclang-rt-14-dev"
                result.skips.append(f"fuzz {name}: no libFuzzer, the corpus was only replayed; {hint}")
    return result
