"""Python interpreters and virtual environments for the NumPy versions under comparison."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# NumPy release -> newest Python its wheels are for, and what its tests need besides pytest and hypothesis.
_PYTHON_FOR = {
    (1, 22): (3, 10),
    (1, 23): (3, 11),
    (1, 24): (3, 11),
    (1, 25): (3, 11),
    (1, 26): (3, 12),
    (2, 0): (3, 12),
    (2, 1): (3, 13),
    (2, 2): (3, 13),
}
_OLDEST_PYTHON = (3, 10)
_NEWEST_PYTHON = (3, 14)
_NEEDS_PYTHON_311 = (2, 3)


class MissingInterpreterError(Exception):
    """No interpreter on this machine fits a NumPy release."""


def release(version: str) -> tuple[int, int]:
    """Return (major, minor) of a version text such as "1.22.4"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"not a NumPy version: {version!r}")
    return int(match[1]), int(match[2])


def _version_of(executable: str) -> tuple[int, int] | None:
    code = "import sys, venv; print(*sys.version_info[:2])"
    try:
        out = subprocess.run([executable, "-c", code], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    words = out.stdout.split()
    return (int(words[0]), int(words[1])) if out.returncode == 0 and len(words) == 2 else None


def find_interpreter(numpy_version: str, given: dict[tuple[int, int], str]) -> str:
    """Return the newest interpreter that fits a NumPy release: one given by option, on PATH, or among pyenv's."""
    newest = _PYTHON_FOR.get(release(numpy_version), _NEWEST_PYTHON)
    oldest = (3, 11) if release(numpy_version) >= _NEEDS_PYTHON_311 else _OLDEST_PYTHON
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(newest[1], oldest[1] - 1, -1):
        candidates = [given.get((3, minor)), shutil.which(f"python3.{minor}"), shutil.which("python3")]
        candidates += [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"), reverse=True)]
        for candidate in candidates:
            if candidate and _version_of(candidate) == (3, minor):
                return candidate
    raise MissingInterpreterError(
        f"NumPy {numpy_version} needs Python 3.{oldest[1]} to 3.{newest[1]}: none found on PATH or in {pyenv}; "
        f"name one with --python 3.{newest[1]}=/path/to/python"
    )


def test_requirements(numpy_version: str) -> list[str]:
    """What NumPy's own suite needs: the compiled helper of test_mem_policy.py is built by setuptools or by Meson."""
    common = ["pytest<9", "hypothesis", "pytest-xdist"]
    if release(numpy_version) < (1, 26):
        return [*common, "setuptools<60"]
    return [*common, "meson", "ninja", "setuptools<70" if release(numpy_version) < (2, 0) else "setuptools"]


class Environment:
    """A virtual environment in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")

    def create(self, interpreter: str) -> None:
        """Make it unless it is there already, with that interpreter's version."""
        if _version_of(self.python) != _version_of(interpreter):
            shutil.rmtree(self.folder, ignore_errors=True)
            subprocess.run([interpreter, "-m", "venv", str(self.folder)], check=True)

    def install(self, *what: str) -> None:
        """Install packages with pip; raises CalledProcessError when pip fails."""
        subprocess.run(
            [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what], check=True
        )

    def variables(self) -> dict[str, str]:
        """Return the process environment with the environment's commands (meson, ninja) first on PATH."""
        path = str(Path(self.python).parent) + os.pathsep + os.environ.get("PATH", os.defpath)
        return {**os.environ, "PATH": path}
