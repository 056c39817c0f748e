"""Extension modules in C and C++, compiled and imported by tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


def compiler(cxx: bool = False) -> list[str]:
    """The C or C++ compiler; the test is skipped where there is none."""
    command = shlex.split(os.environ.get("CXX" if cxx else "CC", "c++" if cxx else "cc"))
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {'C++' if cxx else 'C'} compiler; on Debian and Ubuntu: apt-get install g++")
    return command


def compile_with(command: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a compiler and give what it said."""
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def build_module(source: Path, folder: Path, *flags: str, name: str | None = None) -> Path:
    """Compile an extension module of one file, with warnings as errors; give the file to import."""
    cxx = source.suffix == ".cpp"
    module = folder / f"{name or source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    python = sysconfig.get_path("include")
    if not Path(python, "Python.h").exists():
        pytest.skip(f"no headers of Python in {python}; on Debian and Ubuntu: apt-get install python3-dev")
    standard = "-std=c++17" if cxx else "-std=c99"
    arguments = [standard, "-O1", "-g", "-fPIC", "-shared", *STRICT, f"-isystem{python}", *flags]
    done = compile_with(compiler(cxx), *arguments, source, "-o", module, "-pthread")
    assert done.returncode == 0, done.stderr
    return module


def load(path: Path) -> object:
    """Import an extension module from its file."""
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    name = path.name.partition(".")[0]
    spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
