"""The extensions of examples/extensions, built as their users would build them and run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from c_modules import compile_with, compiler
from clients import need, tools

from rtpool._interface.config import get_pkgconfigdir

EXAMPLES = Path(__file__).parents[3] / "examples" / "extensions"
MODULES = {
    "cython": "Cython",
    "pybind11": "pybind11",
    "nanobind": "nanobind",
    "eigen": "pybind11",
    "opencv": "pybind11",
}


def need_module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'rtpool[examples]'")


def need_header(header: str, package: str, folder: Path, *flags: str) -> None:
    source = folder / "header.cpp"
    source.write_text(f"#if !__has_include(<{header}>)\n#error\n#endif\n", encoding="utf-8")
    if compile_with(compiler(cxx=True), "-std=c++17", *flags, "-E", source, "-o", os.devnull).returncode != 0:
        pytest.skip(f"no <{header}>: on Debian and Ubuntu: apt-get install {package}")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/meson.build")))
def test_the_example_builds_and_runs(name: str, tmp_path: Path) -> None:
    meson = need("meson", "pip install meson ninja")
    ninja = need("ninja", "pip install ninja")
    need("pkg-config", "on Debian and Ubuntu: apt-get install pkg-config")
    compiler(cxx=name not in ("raw_c", "cython"))
    if name in ("raw_c", "cython"):
        need("numpy-config", "it comes with NumPy 2")
    if name in MODULES:
        need_module(MODULES[name])
    if name == "eigen":
        need_header("eigen3/Eigen/Core", "libeigen3-dev", tmp_path)
    if name == "opencv":
        need_header("opencv2/core.hpp", "libopencv-core-dev", tmp_path, "-isystem/usr/include/opencv4")
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("build"))
    build = folder / "build"
    environment = tools() | {"PKG_CONFIG_PATH": get_pkgconfigdir()}
    commands = [
        # Not optimised: half the time, and it is the building and the arrays that are tested.
        ([meson, "setup", str(build), "-Doptimization=0"], {}),
        ([ninja, "-C", str(build)], {}),
        ([sys.executable, "example.py"], {"PYTHONPATH": str(build)}),
    ]
    for command, more in commands:
        done = subprocess.run(
            command, cwd=folder, env=environment | more, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout and "warning" not in done.stderr.lower()


def test_the_list_is_complete() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in os.listdir(EXAMPLES):
        assert name == "README.md" or f"| `{name}` |" in text
