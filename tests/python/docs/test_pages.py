"""The documentation's pages are programs: their code runs, one program a page, where what they need is installed."""

from __future__ import annotations

import ctypes
import importlib.util
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


def is_there(name: str) -> bool:
    """A module, a command, or a library."""
    if ".so" not in name:
        return importlib.util.find_spec(name) is not None or shutil.which(name) is not None
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).with_suffix("").as_posix())
def test_what_the_page_says_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    needs = NEEDS.search(text)
    for name in needs[1].split(", ") if needs else []:
        if not is_there(name):
            pytest.skip(f"{name} is not installed")
    program = tmp_path / "howto.py"
    program.write_text("\n\n".join(CODE.findall(text)))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
