"""The steps in Python: the package's tests, NumPy's own with and without activation, style and types, the site."""

from __future__ import annotations

import ctypes.util

from runner import includes
from runner.commands import ROOT, WORK, Runner
from runner.outcome import Failed, Result, read_junit

# Tests of programs, pages and builds, which run beside the others: folders of tests/python.
PROGRAMS = ("cli", "dask", "docs", "interface", "module", "notebook", "pictures", "replay", "startup", "trace")
# Of these the ones that need nothing but the package and what the quick tests need.
QUICK_PROGRAMS = ("cli", "module", "replay", "startup", "trace")
# Seconds in a run of the usual length: pytest as a whole, and each of its tests. A test that does not end then fails
# and the others go on; where no signal ends it, it is named and pytest ends a little later (commands.A_HUNG_TEST).
ALL_PYTHON_TESTS, A_PYTHON_TEST = 1200.0, 120.0
# What mypy looks at, together where no two have the same name.
SCRIPTS = (
    ("tests/run.py", "tests/bounded.py", "tests/numpy_suite/compare.py", "tests/fuzz/long_run.py", "docs/build.py"),
    ("tests/load/run.py", "tests/stress/long_run.py"),
    ("bench/run.py",),
)


def python(runner: Runner) -> Result:
    """Run the Python tests against the installed package."""
    return _pytest(runner, *(f"--ignore=tests/python/{folder}" for folder in PROGRAMS), "tests/python")


def programs(runner: Runner) -> Result:
    """Run the Python tests of programs, pages and builds, and the core's orders of memory as Arm may carry them out."""
    if not runner.quick and ctypes.util.find_library("portaudio") is None:
        runner.install("libportaudio2")  # for the page about audio; skipped without
    folders = [f"tests/python/{folder}" for folder in (QUICK_PROGRAMS if runner.quick else PROGRAMS)]
    return _pytest(runner, *folders, *([] if runner.quick else ["tests/litmus"]))


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
    result = read_junit(report)
    result.failures += hung
    if not result.failures and code != 0:
        raise Failed(f"pytest: exit code {code}")
    return result


def numpy(runner: Runner) -> Result:
    """Run a part of NumPy's own tests with and without activation."""
    command = [runner.python, "tests/numpy_suite/compare.py", "--here", "--part", "ci", "--doubts"]
    code = runner.run(*command)
    if code == 2:
        raise Failed("the comparison could not run")
    return Result(passed=1) if code == 0 else Result(failures=["NumPy's own tests come out differently when activated"])


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
    lists = includes.missing(ROOT)
    result.passed += not lists
    result.failures += lists
    return result


def docs(runner: Runner) -> Result:
    """Build the documentation site, warnings being errors. Its examples are run with the Python tests."""
    code = runner.run(runner.python, "docs/build.py", "--here")
    return Result(passed=1) if code == 0 else Result(failures=["the documentation does not build"])
