"""Building clients of the C interface as their authors would: a compiler, Python's headers, and ours."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import rtpool

HERE = Path(__file__).parent
FIRST = HERE / "first"  # the header as it was in the first version that had it
NOW = Path(rtpool.get_include())
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


def build_module(source: Path, folder: Path, *flags: str, include: Path = NOW, name: str | None = None) -> Path:
    """Compile an extension module of one file, with warnings as errors; give the file to import."""
    cxx = source.suffix == ".cpp"
    module = folder / f"{name or source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    python = sysconfig.get_path("include")
    standard = "-std=c++17" if cxx else "-std=c99"
    arguments = [standard, "-O1", "-g", "-fPIC", "-shared", *STRICT, f"-isystem{python}", f"-I{include}", *flags]
    done = compile_with(compiler(cxx), *arguments, source, "-o", module, "-pthread")
    assert done.returncode == 0, done.stderr
    return module


def build_program(source: Path, folder: Path, *flags: str, include: Path = NOW) -> Path:
    """Compile a program without Python."""
    cxx = source.suffix == ".cpp"
    program = folder / source.stem
    standard = [] if any(flag.startswith("-std=") for flag in flags) else ["-std=c++17" if cxx else "-std=c99"]
    done = compile_with(compiler(cxx), *standard, *STRICT, f"-I{include}", *flags, source, "-o", program)
    assert done.returncode == 0, done.stderr
    return program


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


def tools() -> dict[str, str]:
    """The environment of a build: the programs of this Python's environment come first."""
    paths = [os.path.dirname(sys.executable), sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}
    return inherited | {"PATH": os.pathsep.join(paths)}


def need(program: str, hint: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    path = shutil.which(program, path=tools()["PATH"])
    if path is None:
        pytest.skip(f"no {program}: {hint}")
    return path
