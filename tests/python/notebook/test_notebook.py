"""The magics of IPython, in a real shell, and in a real kernel where one can be had."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtpool
from rtpool._notebook import options

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "notebooks.md"
CELL = re.compile(r"^<!-- cell -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell of its own with the extension loaded."""
    # A shell puts a module of its own in the place of the program's, which processes by spawn are made after.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor" if InteractiveShell.__module__ and _newer() else "NoColor"
    made = InteractiveShell(config=config)
    made.run_cell("%load_ext rtpool\nimport numpy as np")
    yield made
    made.reset()


def _newer() -> bool:
    import IPython

    return IPython.version_info[0] >= 9


def run(shell: Any, cell: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    capsys.readouterr()
    result = shell.run_cell(cell)
    told = capsys.readouterr()
    assert result.success, told.out + told.err
    return told.out, result.result


def test_a_cell_runs_once_and_is_told(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, value = run(
        shell,
        "%%rtpool\nruns = globals().get('runs', 0) + 1\na = np.zeros(100_000)\nb = (a * 2) + 1\nb[:3].copy()",
        capsys,
    )
    assert shell.user_ns["runs"] == 1
    assert (value == 1).all() and shell.user_ns["b"].size == 100_000
    assert "with the pool" in told and "page faults" in told and "recorded" in told
    assert "NumPy as it is" not in told
    assert "at most" in told and "misses" in told
    assert rtpool.owner(shell.user_ns["b"]) == rtpool.default_pool()


def test_temporaries_by_line(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, _ = run(
        shell,
        "%%rtpool\nx = np.ones(50_000)\nfor _ in range(4):\n    y = np.sqrt(x)\n    z = y.astype('f4').sum()",
        capsys,
    )
    line = next(line for line in told.splitlines() if "y.astype" in line)
    assert "line 4" in line and "781" in line  # four of 200,000 bytes
    assert "1.1 MiB" in next(line for line in told.splitlines() if "np.sqrt" in line)  # three: the last one stays


def test_lines_of_other_cells(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("def work():\n    return (np.ones(50_000) * 2).sum()", store_history=True)
    assert result.success
    told, _ = run(shell, "%%rtpool\nwork()", capsys)
    assert "return (np.ones(50_000) * 2).sum()" in told
    if hasattr(shell.compile, "format_code_name"):
        assert "In[1]:2" in told, told


def test_a_cell_is_compared_when_asked(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.user_ns["runs"] = []
    told, _ = run(shell, "%%rtpool -c\nruns.append(np.ones(1000))", capsys)
    owners = [rtpool.owner(array) for array in shell.user_ns["runs"]]
    assert owners == [None, rtpool.default_pool(), rtpool.default_pool()]
    assert "NumPy as it is" in told and "times as fast" in told
    run(shell, "runs.clear()", capsys)
    told, _ = run(shell, "%%rtpool --compare -r 3 -n2\nruns.append(1)", capsys)
    assert len(shell.user_ns["runs"]) == 2 * 3 * 2 + 1
    assert "in 3 turns" in told


def test_a_statement_is_compared(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "a = np.ones(100_000)\ncalls = []", capsys)
    told, value = run(shell, "%rtpool -r 2 -n 3 calls.append((a * 2 + 1).sum())", capsys)
    assert value is None and len(shell.user_ns["calls"]) == 13
    assert "NumPy as it is" in told and "in 2 turns" in told
    assert "2 arrays of" in told or "arrays of" in told


def test_errors_are_the_program_s(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%%rtpool\nnp.ones(10)\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert rtpool.get_handler() is None or rtpool.owner(np.ones(3)) is None
    capsys.readouterr()
    shell.run_cell("%%rtpool\nif")
    told = capsys.readouterr()
    assert "SyntaxError" in told.out + told.err
    with rtpool.record():
        assert "records already" in run(shell, "%%rtpool\n1", capsys)[0]
    for line in ("%rtpool", "%rtpool -x 3", "%rtpool -n none 1", "%%rtpool 1 + 1\n2"):
        assert "%load_ext rtpool" in run(shell, line, capsys)[0]


def test_magics_inside_a_cell_and_the_shell_s_own_syntax(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, value = run(shell, "%%rtpool\nhere = %pwd\nlen(here)", capsys)
    assert value == len(shell.user_ns["here"]) and "with the pool" in told


def test_it_can_be_unloaded(shell: Any) -> None:
    shell.run_cell("%unload_ext rtpool")
    assert not shell.run_cell("%rtpool 1").success or "rtpool" not in shell.magics_manager.magics["line"]


def test_an_activated_process_has_nothing_to_compare_with(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rtpool.activate(malloc="keep", objects="keep")
    try:
        assert "is activated" in run(shell, "%%rtpool -c\nnp.ones(1000)", capsys)[0]
    finally:
        rtpool.deactivate()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a + b", options.Options(False, 0, 0, 8, "a + b")),
        ("-c", options.Options(True, 0, 0, 8, "")),
        ("-r3 -n 10 f(-x)", options.Options(False, 3, 10, 8, "f(-x)")),
        ("--rounds=4 --top 2 x", options.Options(False, 4, 0, 2, "x")),
        ("-- -c", options.Options(False, 0, 0, 8, "-c")),
        ("-3 + a", options.Options(False, 0, 0, 8, "-3 + a")),
    ],
)
def test_options(line: str, expected: options.Options) -> None:
    assert options.parse(line) == expected


def test_rtpool_does_not_import_ipython() -> None:
    code = "import sys, rtpool, rtpool._notebook.magics; rtpool.load_ipython_extension; print('IPython' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"


def cells() -> list[str]:
    return CELL.findall(PAGE.read_text(encoding="utf-8"))


def test_the_page_s_cells_run_in_a_shell(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(cells()) >= 3
    told = "".join(run(shell, cell, capsys)[0] for cell in cells())
    assert "NumPy as it is" in told and "temporaries" in told


@pytest.mark.slow
def test_the_page_s_cells_run_in_a_kernel(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells()])
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "NumPy as it is" in told and "line " in told
