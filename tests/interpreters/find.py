"""Pythons by version: on PATH, of pyenv and uv, built by tests/free_threaded, and those of other systems on this
machine.

A version is as in "3.13", or "3.13t" for the free-threaded build.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from systems import System

ROOT = Path(__file__).resolve().parent.parent.parent
WHICH = (
    "import sys, sysconfig, venv, ensurepip; t = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else '';"
    " print('%d.%d%s' % (*sys.version_info[:2], t))"
)


class Impossible(Exception):
    """This cannot be had here; the text says why."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that starts and makes environments."""

    version: str
    path: str
    system: System | None = None  # the one that it is of, where that is not this machine's

    def command(self, *parts: object) -> list[str]:
        """The command line that runs `parts`, which begin with a program, where this Python is."""
        return self.system.command(*parts) if self.system is not None else [str(part) for part in parts]

    @property
    def where(self) -> str:
        return self.system.name if self.system is not None else "this system"


def places(version: str) -> Iterable[str]:
    """Where this machine may have it."""
    name = f"python{version}"
    if found := shutil.which(name):
        yield found
    home, number = Path.home(), version.removesuffix("t")
    threads = "t" if version.endswith("t") else ""
    built = ROOT / "build" / "free-threaded" / "python" / "bin" / name
    if threads and built.exists():
        yield str(built)
    of_uv = f".local/share/uv/python/cpython-{number}.*{'freethreaded*' if threads else ''}/bin/{name}"
    for pattern in (f".pyenv/versions/{number}.*{threads}/bin/{name}", of_uv):
        yield from map(str, sorted(home.glob(pattern), reverse=True))


def find(version: str, systems: Iterable[System] = ()) -> Interpreter:
    """The first that is of this version; raises Impossible."""
    candidates = [Interpreter(version, place) for place in places(version)]
    for system in systems:
        if (system.root / f"usr/bin/python{version}").exists():
            candidates.append(Interpreter(version, f"/usr/bin/python{version}", system))
    for candidate in candidates:
        line = candidate.command(candidate.path, "-c", WHICH)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    raise Impossible(f"no Python {version} on PATH, among those of pyenv and uv, or in another system here")
