"""The environment that everything runs in: Python's, with rtpool installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from runner.builds import configure_core
from runner.commands import ROOT, Runner
from runner.outcome import Failed, Result

BUILD_REQUIREMENTS = ["meson-python>=0.18", "meson>=1.2", "ninja", "numpy>=2.0"]


def environment(runner: Runner) -> Result:
    """Make the environment and install rtpool in it, from the build folder of the core's tests: same objects."""
    if not Path(runner.python).exists():
        command = [sys.executable, "-m", "venv", "--clear", str(runner.venv)]
        code = runner.run(*command)
        if code != 0:
            raise Failed("no virtual environment can be made; on Debian and Ubuntu: apt-get install python3-venv")
    pip = [runner.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    runner.must("pip cannot install what the build needs", *pip, *BUILD_REQUIREMENTS)
    pip += ["--no-build-isolation", f"--config-settings=build-dir={configure_core(runner)}"]
    pip += ["--config-settings=compile-args=binding"]
    extras = "quick" if runner.quick else "test,examples,docs"
    runner.must("rtpool cannot be built and installed", *pip, f"{ROOT}[{extras}]")
    if not runner.quick and shutil.which("chromium") is None:
        runner.install("chromium")  # for the tests of pages, which are skipped without
    return Result()
