"""The documentation's pages are programs: their code runs, one program a page, where what they need is installed."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"<!-- needs: (.*?) -->")
PAGES = sorted(page for page in DOCS.rglob("*.md") if CODE.search(page.read_text(encoding="utf-8")))


def surroundings() -> dict[str, str]:
    """The environment that pages run in."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}


def is_there(name: str, folder: Path) -> bool:
    """A library (`libportaudio.so.2`), a command (`java command`), or a module of the Python that runs the page."""
    if ".so" in name:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True
    if name.endswith(" command"):
        return shutil.which(name.removesuffix(" command")) is not None
    # Neither this process, whose path has folders of tests, nor a command, which may be another environment's, knows.
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    line = [sys.executable, "-c", code, name]
    return subprocess.run(line, cwd=folder, env=surroundings(), timeout=60, check=False).returncode == 0


def test_a_command_of_another_environment_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "a_profiler"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert is_there("a_profiler command", tmp_path) and not is_there("a_profiler", tmp_path)
    assert is_there("numpy", tmp_path) and not is_there("numpy command", tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).with_suffix("").as_posix())
def test_what_the_page_says_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    needs = NEEDS.search(text)
    for name in needs[1].split(", ") if needs else []:
        if not is_there(name, tmp_path):
            pytest.skip(f"{name} is not installed")
    program = tmp_path / "howto.py"
    program.write_text("\n\n".join(CODE.findall(text)))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
