"""Where rtpool cannot run, configuring the build says so in one line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.skipif(shutil.which("meson") is None, reason="no meson on PATH"),
    pytest.mark.skipif(not (ROOT / "meson.build").exists(), reason="the sources are not here"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on PATH"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "family", "options"),
    [("darwin", "aarch64", []), ("windows", "x86_64", []), ("linux", "x86", ["-m32"]), ("freebsd", "x86_64", [])],
)
def test_other_systems_end_with_one_line(tmp_path: Path, system: str, family: str, options: list[str]) -> None:
    machine = tmp_path / "machine.ini"
    machine.write_text(
        f"[binaries]\ncpp = 'g++'\nar = 'ar'\n[built-in options]\ncpp_args = {options!r}\n"
        f"[host_machine]\nsystem = '{system}'\ncpu_family = '{family}'\ncpu = '{family}'\nendian = 'little'\n"
        "[properties]\nneeds_exe_wrapper = true\n"
    )
    done = subprocess.run(
        ["meson", "setup", tmp_path / "build", ROOT, "--cross-file", machine, "-Dpython=false"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
    assert done.returncode == 1 and len(errors) == 1, done.stdout
    assert "needs 64-bit Linux" in errors[0] and f"this is {system} on {family}" in errors[0], errors
