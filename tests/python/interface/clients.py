"""Building clients of the C interface as their authors would: a compiler, Python's headers, and ours."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import c_modules
import pytest
from c_modules import STRICT, compile_with, compiler

import rtpool

HERE = Path(__file__).parent
FIRST = HERE / "first"  # the header as it was in the first version that had it
NOW = Path(rtpool.get_include())


def build_module(source: Path, folder: Path, *flags: str, include: Path = NOW, name: str | None = None) -> Path:
    """Compile a client that is an extension module of one file; give the file to import."""
    return c_modules.build_module(source, folder, f"-I{include}", *flags, name=name)


def build_program(source: Path, folder: Path, *flags: str, include: Path = NOW) -> Path:
    """Compile a program without Python."""
    cxx = source.suffix == ".cpp"
    program = folder / source.stem
    standard = [] if any(flag.startswith("-std=") for flag in flags) else ["-std=c++17" if cxx else "-std=c99"]
    done = compile_with(compiler(cxx), *standard, *STRICT, f"-I{include}", *flags, source, "-o", program)
    assert done.returncode == 0, done.stderr
    return program


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
