"""The reference has everything one can use: names, commands, variables. What is missing there fails here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rtpool

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")}
DOCUMENTED = {
    name.split(".")[-1].removesuffix("()")
    for page in PAGES.values()
    for name in re.findall(r"^\.\. auto(?:class|function|exception|data|attribute)::\s+(\S+)", page, re.MULTILINE)
}
# Of the process itself, or told elsewhere: the summary of `run`, what `run` hands on to the processes it starts.
INSIDE = {"RTPOOL_RUN", "RTPOOL_RUN_BEFORE", "RTPOOL_RECORD", "RTPOOL_SUMMARY", "RTPOOL__LIMIT"}
SOURCES = [
    path
    for folder in ("src", "numpy_handler")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".cpp", ".hpp", ".h", ".pth")
]


@pytest.mark.parametrize("name", [name for name in rtpool.__all__ if not name.startswith("__")])
def test_every_public_name_stands_in_the_reference(name: str) -> None:
    assert name in DOCUMENTED, f"add `.. autoclass:: {name}` or `.. autofunction:: {name}` to a page of docs/reference"


def test_every_name_for_dask_stands_in_the_reference() -> None:
    module = ast.parse((ROOT / "numpy_handler" / "rtpool" / "dask" / "__init__.py").read_text(encoding="utf-8"))
    listed = [
        node.value for node in module.body if isinstance(node, ast.Assign) and "__all__" in ast.dump(node.targets[0])
    ]
    hooks = {"dask_setup", "dask_teardown"}  # Dask's own names for what a preload module has
    missing = set(ast.literal_eval(listed[0])) - hooks - DOCUMENTED
    assert not missing


def test_every_variable_stands_in_the_reference() -> None:
    """What sources name, and nothing else."""
    used = {
        name
        for path in SOURCES
        for name in re.findall(r"""["'`]{1,2}(RTPOOL_[A-Z_]*[A-Z])\b""", path.read_text(encoding="utf-8"))
        if not path.name.startswith("rtpool.h")
    }
    told = set(re.findall(r"^\| `(RTPOOL_[A-Z_]+)`", PAGES["environment.md"], re.MULTILINE))
    assert used - INSIDE == told


def test_every_command_stands_in_the_reference() -> None:
    """The page takes them from the program itself, so it is enough that the program lists them."""
    assert "{rtpool-commands}" in PAGES["commands.md"]
    folder = ROOT / "numpy_handler" / "rtpool" / "cli"
    commands = {path.stem for path in folder.glob("*.py") if not path.name.startswith("_")}
    command = [sys.executable, "-m", "rtpool", "--help"]
    overview = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert commands == set(re.findall(r"^    (\w+) ", overview.stdout, re.MULTILINE))
