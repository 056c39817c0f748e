"""All tests, C++ and Python, by one command on a machine with g++, Python and nothing else prepared:

    python3 tests/run.py

It makes an environment of its own in build/tests, installs rtpool there from this tree, and runs: the
GoogleTest suite of the core as released, under AddressSanitizer with UndefinedBehaviorSanitizer, and under
ThreadSanitizer; the Python tests; ruff; mypy; a part of NumPy's own test suite with and without
activation; each fuzz target for some seconds; and builds the documentation. What cannot run is skipped, with the
reason. The last line is `N passed, N failed, N skipped`; the exit code is 0 if nothing failed.

    python3 tests/run.py --quick     a first answer in five minutes: the core as released, most Python tests, style
    python3 tests/run.py --only python lint     some steps
    python3 tests/run.py --skip asan tsan numpy     all but some

Steps run side by side; all step aside (`nice`) for the Python tests with real-time loops among them. Each command has a
deadline (bounded.py), each Python test as well: what hangs is named and shown with its stacks, and the whole ends
within half an hour. A machine that is too slow for that: `--minutes 120`.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bounded import TIME_IS_UP

ROOT = Path(__file__).resolve().parent.parent
BOUNDED = ROOT / "tests" / "bounded.py"
WORK = ROOT / "build" / "tests"
# Line numbers only: full debug information doubles the time to build.
# Several sources at a time: most of what they take to compile is headers. The build for release takes each by itself,
# so that each includes what it uses.
TOGETHER = ["-Dunity=on", "-Dunity_size=6"]
SANITIZED = ["-Doptimization=1", "-Ddebug=false", "-Dcpp_args=-g1", "-Db_ndebug=false", "-Db_lundef=false", *TOGETHER]
WATCHED = [*SANITIZED, "-Dcheck_level=3", "-Db_sanitize=address,undefined"]
# Tests of programs, pages and builds, which run beside the others: folders of tests/python.
PROGRAMS = ("cli", "dask", "docs", "interface", "module", "notebook", "pictures", "replay", "startup", "trace")
BUILD_REQUIREMENTS = ["meson-python>=0.18", "meson>=1.2", "ninja", "numpy>=2.0"]
# Seconds in a run of MINUTES: what a command may take, pytest as a whole, and each of its tests. A test that does not
# end then fails and the others go on; where no signal ends it, it is named and pytest ends a little later.
MINUTES = 30.0
A_COMMAND, ALL_PYTHON_TESTS, A_PYTHON_TEST, A_HUNG_TEST = 600.0, 1200.0, 120.0, 180.0


# What mypy looks at, together where no two have the same name.
SCRIPTS = (
    ("tests/run.py", "tests/bounded.py", "tests/numpy_suite/compare.py", "tests/fuzz/long_run.py", "docs/build.py"),
    ("tests/load/run.py", "tests/stress/long_run.py"),
    ("bench/run.py",),
)


class Skipped(Exception):
    """A step cannot run here; the text says why and what would help."""


class Failed(Exception):
    """A step failed as a whole; the text says what to look at."""


@dataclass
class Result:
    """How a step came out, in tests."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.passed += other.passed
        self.failures += other.failures
        self.skips += other.skips


class Clock:
    """What is left of the time of the whole run."""

    def __init__(self, minutes: float) -> None:
        self.scale = minutes / MINUTES
        # The last commands are still to be killed and reported then.
        self.end = time.monotonic() + 60 * minutes - 30 * self.scale

    def bound(self, seconds: float) -> float:
        """The time for a command that may take so many seconds in a run of the usual length."""
        return min(seconds * self.scale, self.end - time.monotonic())

    def stop(self) -> None:
        """Nothing more is started."""
        self.end = 0


class Runner:
    """Runs the commands of one step in the test environment, their output in a log file."""

    def __init__(self, step: str, clock: Clock, quick: bool = False, prefix: tuple[str, ...] = ()) -> None:
        self.venv = WORK / "venv"
        self.python = str(self.venv / "bin" / "python")
        self.logs = WORK / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.step = step
        self.clock = clock
        self.processor_time = 0.0
        self.quick = quick
        self.prefix = prefix
        self.env = {**os.environ, "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        self.env.pop("PYTHONPATH", None)

    @property
    def log(self) -> Path:
        return self.logs / f"{self.step}.log"

    def run(
        self,
        *command: str,
        variables: dict[str, str] | None = None,
        seconds: float = A_COMMAND,
        now: Path | None = None,
    ) -> int:
        """Run a command with its output appended to the step's log; return its exit code.

        It may take so many seconds in a run of the usual length. `now`: where it keeps what it is doing; then each of
        these things is bounded, too.
        """
        bound = self.clock.bound(seconds)
        if bound <= 0:
            raise Failed(f"no time is left to run {Path(command[0]).name}")
        bounded = [sys.executable, str(BOUNDED), "--seconds", f"{bound:.0f}"]
        if now is not None:
            bounded += ["--now", str(now), "--each", f"{self.clock.scale * A_HUNG_TEST:.0f}"]
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                [*self.prefix, *bounded, *command],
                cwd=ROOT,
                env={**self.env, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_time += usage.ru_utime + usage.ru_stime
        if process.returncode == TIME_IS_UP:
            said = [line for line in self.tail().splitlines() if line.startswith("bounded: ")]
            raise Failed(said[-1].removeprefix("bounded: "))
        return process.returncode

    def must(self, what: str, *command: str) -> None:
        """Run a command that has to succeed."""
        code = self.run(*command)
        if code != 0:
            raise Failed(f"{what}: exit code {code}")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def environment(runner: Runner) -> Result:
    """Make the environment and install rtpool in it, from the build folder of the core's tests: same objects."""
    if not Path(runner.python).exists():
        command = [sys.executable, "-m", "venv", "--clear", str(runner.venv)]
        code = runner.run(*command)
        if code != 0:
            raise Failed("no virtual environment can be made; on Debian and Ubuntu: apt-get install python3-venv")
    pip = [runner.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    runner.must("pip cannot install what the build needs", *pip, *BUILD_REQUIREMENTS)
    pip += ["--no-build-isolation", f"--config-settings=build-dir={_configure_core(runner)}"]
    pip += ["--config-settings=compile-args=binding"]
    extras = "quick" if runner.quick else "test,examples,docs"
    runner.must("rtpool cannot be built and installed", *pip, f"{ROOT}[{extras}]")
    if not runner.quick and shutil.which("chromium") is None:
        _install_package(runner, "chromium")  # for the tests of pages, which are skipped without
    return Result()


def _configure_core(runner: Runner) -> Path:
    """The build folder of the binding and, where there is GoogleTest, of the core's tests."""
    try:
        _find_googletest(runner)
        options = ["-Dcore_tests=true", "-Dcore_bench=true", "-Dtogether=true"]
    except Skipped:
        options = []  # the step says why
    return _configure(runner, "core", options, python=True)


def _install_package(runner: Runner, package: str) -> bool:
    """Install a package of the distribution where that is permitted; whether it was tried."""
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        return False
    runner.run(apt, "update", "-qq")
    runner.run(apt, "install", "-y", "-qq", package, variables={"DEBIAN_FRONTEND": "noninteractive"})
    return True


def _find_googletest(runner: Runner) -> None:
    """Install GoogleTest from the distribution if it is missing and may be installed; raise Skipped if not."""

    def there() -> bool:
        with tempfile.TemporaryDirectory(prefix="rtpool-gtest-") as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("#include <gtest/gtest.h>\nint main() { return 0; }\n", encoding="utf-8")
            compiler = os.environ.get("CXX", "c++").split()
            return runner.run(*compiler, "-std=c++20", str(source), "-lgtest", "-o", str(Path(folder, "probe"))) == 0

    if there():
        return
    if not shutil.which(os.environ.get("CXX", "c++").split()[0]):
        raise Skipped("no C++ compiler; on Debian and Ubuntu: apt-get install g++")
    if _install_package(runner, "libgtest-dev"):
        if there():
            return
        raise Skipped(f"GoogleTest is missing and apt-get could not install libgtest-dev (see {runner.log})")
    raise Skipped("GoogleTest is missing; on Debian and Ubuntu: apt-get install libgtest-dev")


def _configure(
    runner: Runner, folder: str, options: list[str], variables: dict[str, str] | None = None, python: bool = False
) -> Path:
    """Configure a build folder of its own, if it is not yet, and give it."""
    build = WORK / folder
    options = [f"-Dpython={str(python).lower()}", *options]
    asked = build / "asked.txt"
    if not (build / "build.ninja").exists() or not asked.exists() or asked.read_text() != repr(options):
        shutil.rmtree(build, ignore_errors=True)
        if (code := runner.run("meson", "setup", str(build), str(ROOT), *options, variables=variables)) != 0:
            raise Failed(f"meson setup: exit code {code}")
        asked.write_text(repr(options))
    return build


def _build(runner: Runner, folder: str, options: list[str], variables: dict[str, str] | None = None) -> Path:
    """Configure and build a folder of its own, and give it."""
    build = _configure(runner, folder, options, variables)
    runner.must("build", "ninja", "-C", str(build))
    return build


def _googletest(runner: Runner, build: Path, *selection: str, variables: dict[str, str] | None = None) -> Result:
    """Run the GoogleTest programs of a build folder."""
    report = build / "meson-logs" / "testlog.junit.xml"
    report.unlink(missing_ok=True)
    code = runner.run("meson", "test", "-C", str(build), "--print-errorlogs", *selection, variables=variables)
    if code != 0 and not report.exists():
        raise Failed(f"meson test: exit code {code}")
    result = _read_junit(report)
    if code != 0:
        result.failures += _ended_otherwise(build / "meson-logs" / "testlog.json")
    if code != 0 and not result.failures:
        raise Failed(f"meson test: exit code {code}")
    return result


def _ended_otherwise(log: Path) -> list[str]:
    """The programs that ended without a report, by a signal or at their deadline, and the test each was in."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        program = json.loads(line)
        if program["result"] in ("TIMEOUT", "ERROR", "INTERRUPT"):
            begun = re.findall(r"^\[ RUN      \] (\S+)", program.get("stdout", ""), re.MULTILINE)
            found.append(f"{program['name']}: {program['result']}" + (f" in {begun[-1]}" if begun else ""))
    return found


def core(runner: Runner) -> Result:
    """Run the core's tests as it is released, and its schedules; the core's benchmark must build."""
    _find_googletest(runner)
    build = _configure_core(runner)
    if not runner.quick:  # else `meson test` builds what it runs
        runner.must("build", "ninja", "-C", str(build))
    return _googletest(runner, build, *(["--suite", "core"] if runner.quick else []))


def _has_libfuzzer(runner: Runner) -> bool:
    """Whether clang++ is there with libFuzzer and AddressSanitizer."""
    with tempfile.TemporaryDirectory(prefix="rtpool-clang-") as folder:
        source = Path(folder, "probe.cpp")
        text = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n'
        source.write_text(text, encoding="utf-8")
        command = ["clang++", "-fsanitize=fuzzer,address,undefined", str(source), "-o", str(Path(folder, "probe"))]
        return shutil.which("clang++") is not None and runner.run(*command) == 0


def asan(runner: Runner) -> Result:
    """Run the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer, with all its own checks."""
    _find_googletest(runner)
    # The fuzz targets are of the same objects where they are not guided.
    build = _build(runner, "asan", [*WATCHED, "-Dcore_tests=true", "-Dfuzz=true"])
    variables = {
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    return _googletest(runner, build, variables=variables)


def tsan(runner: Runner) -> Result:
    """Run the core's tests under ThreadSanitizer."""
    _find_googletest(runner)
    build = _build(runner, "tsan", [*SANITIZED, "-Dcheck_level=2", "-Db_sanitize=thread", "-Dcore_tests=true"])
    return _googletest(runner, build, variables={"TSAN_OPTIONS": "exitcode=66:second_deadlock_stack=1"})


def fuzz(runner: Runner) -> Result:
    """Fuzz each target for some seconds, or only replay the corpus where clang's libFuzzer is missing."""
    guided = _has_libfuzzer(runner)
    if guided:
        options = [*WATCHED, "-Dfuzz=true", "-Dcpp_args=-g1 -fno-sanitize-recover=undefined -fsanitize=fuzzer-no-link"]
        build = _build(runner, "fuzz", options, {"CC": "clang", "CXX": "clang++"})
    else:
        _find_googletest(runner)
        build = _build(runner, "asan", [*WATCHED, "-Dcore_tests=true", "-Dfuzz=true"])
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


def python(runner: Runner) -> Result:
    """Run the Python tests against the installed package."""
    return _pytest(runner, *(f"--ignore=tests/python/{folder}" for folder in PROGRAMS), "tests/python")


def programs(runner: Runner) -> Result:
    """Run the Python tests of programs, pages and builds."""
    if not runner.quick and ctypes.util.find_library("portaudio") is None:
        _install_package(runner, "libportaudio2")  # for the page about audio; skipped without
    return _pytest(runner, *(f"tests/python/{folder}" for folder in PROGRAMS))


def _pytest(runner: Runner, *selection: str) -> Result:
    report, now = WORK / f"{runner.step}.xml", WORK / f"{runner.step}.now"
    report.unlink(missing_ok=True)
    command = [runner.python, "-m", "pytest", "-q", f"--junitxml={report}", "-o", "timeout_method=signal"]
    command += ["-o", f"cache_dir={WORK / f'{runner.step}.cache'}"]
    command += [f"--timeout={runner.clock.scale * A_PYTHON_TEST:.0f}", *(["-m", "not slow"] if runner.quick else [])]
    variables = {"RTPOOL_TEST_NOW": str(now)}
    hung: list[str] = []
    try:
        code = runner.run(*command, *selection, variables=variables, seconds=ALL_PYTHON_TESTS, now=now)
    except Failed as reason:
        if not report.exists():
            raise
        hung = [str(reason)]  # after the last test
    result = _read_junit(report)
    result.failures += hung
    if not result.failures and code != 0:
        raise Failed(f"pytest: exit code {code}")
    return result


def lint(runner: Runner) -> Result:
    """Check style, and types in strict mode."""
    result = Result()
    mypy = [runner.python, "-m", "mypy", "--strict"]
    checks = {
        "ruff check": [runner.python, "-m", "ruff", "check", "."],
        "ruff format": [runner.python, "-m", "ruff", "format", "--check", "numpy_handler", "tests/python", "examples"],
        "mypy over the package": [*mypy, "-p", "rtpool"],
    }
    for scripts in SCRIPTS:
        checks[f"mypy over {' '.join(scripts)}"] = [*mypy, "--ignore-missing-imports", *scripts]
    for name, command in checks.items():
        if runner.run(*command) == 0:
            result.passed += 1
        else:
            result.failures.append(name)
    return result


def numpy(runner: Runner) -> Result:
    """Run a part of NumPy's own tests with and without activation."""
    command = [runner.python, "tests/numpy_suite/compare.py", "--here", "--part", "ci"]
    code = runner.run(*command)
    if code == 2:
        raise Failed("the comparison could not run")
    return Result(passed=1) if code == 0 else Result(failures=["NumPy's own tests come out differently when activated"])


def docs(runner: Runner) -> Result:
    """Build the documentation site, warnings being errors. Its examples are run with the Python tests."""
    code = runner.run(runner.python, "docs/build.py", "--here")
    return Result(passed=1) if code == 0 else Result(failures=["the documentation does not build"])


# As many at a time as there are processors and one more, each as soon as there is room for it.
STEPS: dict[str, Callable[[Runner], Result]] = {
    "python": python,
    "programs": programs,
    "core": core,
    "tsan": tsan,
    "asan": asan,
    "fuzz": fuzz,
    "numpy": numpy,
    "docs": docs,
    "lint": lint,
}
QUICK = ("python", "programs", "core", "lint")


def _read_junit(path: Path) -> Result:
    """Count the cases of a JUnit file; none is a failure of its own."""
    if not path.exists():
        raise Failed("no test report was written")
    result = Result()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname') or ''}::{case.get('name')}".removeprefix("::")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failures.append(name)
        elif (skipped := case.find("skipped")) is not None:
            reason = skipped.get("message") or (skipped.text or "").strip() or "no reason given"
            # GoogleTest puts the place on the first line and what was said on the next.
            result.skips.append(f"{name}: {reason.splitlines()[-1]}")
        else:
            result.passed += 1
    if not (result.passed or result.failures or result.skips):
        raise Failed("the test report has no test in it")
    return result


def _perform(runner: Runner, step: Callable[[Runner], Result]) -> Result:
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
    counts = f"{result.passed} passed, {len(result.failures)} failed, {len(result.skips)} skipped"
    took = f"{time.monotonic() - began:6.1f} s, {runner.processor_time:6.1f} s of processors"
    print(f"{name:<12}{took}" + ("" if step is environment else f"  {counts}") + problem, flush=True)
    return result


def _grouped(skips: list[str]) -> list[str]:
    """Say each reason once, with the test it was given for or their number."""
    by_reason: dict[str, list[str]] = {}
    for line in skips:
        name, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(name)
    return [
        f"{names[0]}: {reason}" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more: {reason}"
        for reason, names in by_reason.items()
    ]


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
    total = _perform(Runner("environment", clock, arguments.quick), environment)
    if not total.failures:
        with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as executor:
            steps = []
            for name in wanted:
                prefix = () if name == "python" else ("nice", "-n", "10")
                runner = Runner(name, clock, arguments.quick, prefix)
                steps.append(executor.submit(_perform, runner, STEPS[name]))
            try:
                wait(steps)
            except KeyboardInterrupt:
                clock.stop()
            for step in steps:
                total.add(step.result())
        total.skips += [f"{name}: left out by option" for name in STEPS if name not in wanted]
    for line in _grouped(total.skips):
        print(f"skipped: {line}")
    for line in total.failures:
        print(f"failed: {line}")
    print(f"{total.passed} passed, {len(total.failures)} failed, {len(total.skips)} skipped")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
