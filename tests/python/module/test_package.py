"""The package as a whole: what importing does, what the module exports, and that its examples run."""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rtpool
from rtpool import _core

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "numpy_handler" / "rtpool"


def test_importing_changes_nothing(run_python) -> None:
    run_python(
        """
        import importlib, numpy as np
        core = "numpy._core" if np.__version__ >= "2" else "numpy.core"
        multiarray = importlib.import_module(core + ".multiarray")
        before = multiarray.get_handler_name()
        import rtpool
        assert multiarray.get_handler_name() == before == "default_allocator"
        assert rtpool.active_pool() is None and rtpool.owner(np.empty(10)) is None
        """
    )


def test_importing_is_light(run_python) -> None:
    done = run_python(
        """
        import sys, numpy
        before = set(sys.modules)
        import rtpool
        print(*sorted(set(sys.modules) - before))
        """
    )
    added = done.stdout.split()
    heavy = {"asyncio", "json", "multiprocessing", "dataclasses", "inspect", "argparse", "subprocess", "tempfile"}
    assert not heavy & set(added), added


def test_the_version_is_the_project_s() -> None:
    build = (ROOT / "meson.build").read_text()
    assert f"version: '{rtpool.__version__}'" in build


def test_public_names_exist_and_are_documented() -> None:
    for name in rtpool.__all__:
        value = getattr(rtpool, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
    for name, member in inspect.getmembers(rtpool.Pool):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name


def test_only_the_init_function_is_exported() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm (binutils)")
    command = [nm, "-D", "--defined-only", _core.__file__]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert names == ["PyInit__core"]


def _stub_names(tree: ast.Module, cls: str | None = None) -> set[str]:
    body: list[ast.stmt] = tree.body
    if cls is not None:
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    functions = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return functions | {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and hasattr(node.target, "id")
    }


def test_the_stubs_name_what_there_is() -> None:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    there = {name for name in dir(_core) if not (name.startswith("__") and name != "__version__")}
    assert there == _stub_names(tree)
    special = {"__new__", "__contains__", "__eq__", "__hash__", "__enter__", "__exit__"}
    for cls in (_core.Pool, _core.Handler):
        members = {name for name in vars(cls) if not name.startswith("__") or name in special}
        assert members - {"__reduce__"} == _stub_names(tree, cls.__name__), cls


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example: Path) -> None:
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_docstring_examples(run_python) -> None:
    done = run_python(
        """
        import doctest, importlib, pkgutil, numpy, rtpool
        names = {"np": numpy, "rtpool": rtpool}
        failed = 0
        for found in pkgutil.walk_packages(rtpool.__path__, "rtpool."):
            if found.name.endswith(("__main__", "_core")):
                continue
            try:
                module = importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                # What only an extra brings.
                extras = ("rich", "dask", "distributed", "matplotlib", "IPython", "pytest")
                if error.name.partition(".")[0] not in extras:
                    raise
                print(f"{found.name} needs {error.name}")
                continue
            failed += doctest.testmod(module, extraglobs=names).failed
        raise SystemExit(failed)
        """
    )
    left_out = [line for line in done.stdout.splitlines() if line.startswith("rtpool.") and " needs " in line]
    if left_out:
        pytest.skip(f"the other examples ran; {'; '.join(left_out)}, which is not installed")
