"""What wheels are built for, and the build settings of each: Meson cross files around zig's compiler.

zig (`pip install ziglang`) brings Clang, libc++, and the headers and symbol lists of each glibc and of musl. So one
machine builds for both processors and both C libraries, and for a glibc older than its own. libc++ goes into the
module; a wheel needs libc alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Without it zig keeps a pointer to the frame in each function: six instructions of an allocation and its free.
OPTIONS = ("-fomit-frame-pointer",)


@dataclass(frozen=True)
class Target:
    """A kind of system that has wheels of its own."""

    architecture: str  # x86_64, aarch64
    libc: str  # glibc, musl
    policy: str  # the platform tag without the architecture
    zig: str  # what zig calls it, without the architecture

    @property
    def tag(self) -> str:
        return f"{self.policy}_{self.architecture}"

    @property
    def triplet(self) -> str:
        """The part of a module's file name that says which systems it is for."""
        return f"{self.architecture}-linux-{'gnu' if self.libc == 'glibc' else 'musl'}"

    def suffix(self, version: tuple[int, int], threads: str) -> str:
        """What the names of modules end in."""
        return suffix(version, threads, self.architecture, self.libc)

    def write_cross_file(self, place: Path, zig: Path, include: Sequence[Path] = ()) -> Path:
        """A Meson cross file for the Python that runs this, as it is on the target; `include`: further folders with
        headers."""
        options = f"'-target', '{self.architecture}-linux-{self.zig}'"
        dynamic = ", '-dynamic'" if self.libc == "musl" else ""
        place.parent.mkdir(parents=True, exist_ok=True)
        # One program: of a command line Meson takes the first word.
        python = place.with_suffix(".python")
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "target_python.py"}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        place.write_text(
            "[binaries]\n"
            f"c = [{compiler(place, zig, 'cc')}, {options}{dynamic}]\n"
            f"cpp = [{compiler(place, zig, 'c++')}, {options}{dynamic}]\n"
            f"ar = ['{zig}', 'ar']\n"
            f"python = '{python}'\n\n"
            "[built-in options]\n"
            f"cpp_args = {[*OPTIONS, *(f'-isystem{folder}' for folder in include)]}\n\n"
            "[host_machine]\n"
            "system = 'linux'\n"
            f"cpu_family = '{self.architecture}'\n"
            f"cpu = '{self.architecture}'\n"
            "endian = 'little'\n",
            encoding="utf-8",
        )
        return place


def compiler(place: Path, zig: Path, name: str) -> str:
    """One of zig's compilers as words for Meson. By ccache, where that is, the core is compiled once a target and not
    for each Python. It takes a single word for the compiler; zig itself keeps no object made with a list of headers.
    """
    program = place.parent / f"zig-{name}"
    program.write_text(f'#!/bin/sh\nexec "{zig}" {name} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return ", ".join(f"'{word}'" for word in (shutil.which("ccache"), program) if word)


def suffix(version: tuple[int, int], threads: str, architecture: str, libc: str) -> str:
    """What a CPython's modules are called at the end. Python 3.10 has no name of its own for musl."""
    system = "musl" if libc == "musl" and version > (3, 10) else "gnu"
    return f".cpython-{version[0]}{version[1]}{threads}-{architecture}-linux-{system}.so"


TARGETS = {
    target.tag: target
    for target in (
        Target("x86_64", "glibc", "manylinux_2_28", "gnu.2.28"),
        Target("aarch64", "glibc", "manylinux_2_28", "gnu.2.28"),
        Target("x86_64", "musl", "musllinux_1_2", "musl"),
        Target("aarch64", "musl", "musllinux_1_2", "musl"),
    )
}
