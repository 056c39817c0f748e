"""A CPython for musl, built on this machine from Debian's sources with zig's compiler, into build/musl.

    python tests/musl/musl_python.py [--architecture aarch64] [--zig PROGRAM]

It takes some minutes on two cores, once; a build that was ended goes on where it was. That for 64-bit Arm is
cross-built, with the help of the one for this machine. Needs Debian on x86-64 with apt-get, make, autoconf, automake,
libtool, pkg-config, patchelf, musl and zig (`pip install ziglang`). It has zlib and ctypes (libffi), each built for
musl as well, and neither OpenSSL nor pip. It runs with the musl of a Debian newer than this one may be, as NumPy's
wheels have relocations that musl knows since 1.2.4.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
from debian_source import fetch, fetch_files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "musl"
LOADER = WORK / "files" / "musl" / "root" / "usr" / "lib" / "x86_64-linux-musl" / "libc.so"
VERSION = "3.13"
ARCHITECTURES = ("x86_64", "aarch64")

# The package's newer archives are named with a sign that some copies of Debian's archive do not find.
SUITES = {"zlib": "bookworm"}

# What zig has declarations of, and the musl of this machine, by which the build runs it, may not have.
LACKING = ("preadv2", "pwritev2", "statx")

# What a program would have to be run for to know, where it cannot be run.
ANSWERS = ("ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no")

# Asked whether it links programs without a dynamic linker, zig would build all of libc and libc++ for the answer.
NO_STATIC = ("lt_cv_prog_compiler_static_works=no", "lt_cv_prog_compiler_static_works_CXX=no")

# Not those of the dates in CPython, nor those of arguments that zig itself adds.
WARNINGS = ("-Wno-error=date-time", "-Wno-unused-command-line-argument")

COMPILER = """#!/bin/sh
# Asked so, it says what a compiler for glibc says. Without an answer CPython's build goes by what it found out itself.
[ "$1" = --print-multiarch ] && exit 1
# Nor would the libraries that it finds be musl's.
case "$1" in -print-file-name=*) echo "${{1#*=}}"; exit 0 ;; esac
exec "{zig}" {verb} -target {architecture}-linux-musl -dynamic -fno-sanitize=undefined {warnings} "$@"
"""
TOOL = """#!/bin/sh
exec "{zig}" {verb} "$@"
"""


def prefix(architecture: str) -> Path:
    return WORK / f"python-{architecture}"


def interpreter(architecture: str = "x86_64") -> Path | None:
    """The one that was built, if it was; and, where this machine can run it, if it starts."""
    python = prefix(architecture) / "bin" / f"python{VERSION}"
    if not python.exists():
        return None
    if architecture == "x86_64":
        told = subprocess.run([python, "-c", "import zlib, ctypes"], capture_output=True, check=False)
        return python if told.returncode == 0 else None
    modules = {path.name.partition(".")[0] for path in prefix(architecture).glob(f"lib/python{VERSION}/lib-dynload/*")}
    return python if {"zlib", "_ctypes"} <= modules else None


def compilers(zig: Path, architecture: str) -> dict[str, str]:
    """Programs that compile and link for musl, as the variables that builds ask for."""
    folder = WORK / "bin" / architecture
    folder.mkdir(parents=True, exist_ok=True)
    variables = {"CC": ("cc", COMPILER), "CXX": ("c++", COMPILER), "AR": ("ar", TOOL), "RANLIB": ("ranlib", TOOL)}
    for verb, text in variables.values():
        program = folder / verb
        content = text.format(zig=zig, verb=verb, architecture=architecture, warnings=" ".join(WARNINGS))
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    programs = {variable: str(folder / verb) for variable, (verb, _) in variables.items()}
    # By this name, which musl's own stdarg.h defines and zig's does not, CPython's build knows musl.
    return programs | {"CPP": f"{folder / 'cc'} -E -D__DEFINED_va_list"}


def must(*command: object, cwd: Path, env: dict[str, str]) -> None:
    print("$", *command, flush=True)
    log = WORK / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, stdout=file, stderr=file, check=False)
    if done.returncode != 0:
        raise SystemExit(f"failed, see {log.relative_to(ROOT)}")


class Builder:
    """Builds packages for one architecture, each in a folder of its own."""

    def __init__(self, zig: Path, architecture: str) -> None:
        self.architecture = architecture
        self.depends = WORK / f"depends-{architecture}"
        self.environment = os.environ | compilers(zig, architecture)
        # Of this machine's libraries none is found.
        self.environment |= {"PKG_CONFIG_LIBDIR": f"{self.depends}/lib/pkgconfig", "CFLAGS": "-O2 -g0 -fPIC"}
        self.environment |= {f"ac_cv_func_{name}": "no" for name in LACKING}
        for name in ("CPPFLAGS", "CXXFLAGS", "LDFLAGS", "PKG_CONFIG_PATH"):
            self.environment.pop(name, None)

    def build(self, package: str, to: Path, *options: str, targets: tuple[str, ...] = ("install",)) -> None:
        done = WORK / "done" / f"{package}-{self.architecture}"
        if done.exists():
            return
        source = fetch(package, WORK, SUITES.get(package, "trixie"))
        if (source / "configure.ac").exists() and not (source / "configure").exists():
            must("autoreconf", "-fi", cwd=source, env=self.environment)
        folder = WORK / "build" / f"{package}-{self.architecture}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "Makefile").exists():
            must(source / "configure", f"--prefix={to}", *options, cwd=folder, env=self.environment)
        must("make", f"-j{os.cpu_count()}", cwd=folder, env=self.environment)
        must("make", *targets, cwd=folder, env=self.environment)
        done.parent.mkdir(exist_ok=True)
        done.touch()


def build(zig: Path, architecture: str = "x86_64") -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    builder = Builder(zig, architecture)
    names = (f"--host={architecture}-linux-musl", "--build=x86_64-linux-gnu")
    builder.build("zlib", builder.depends, "--static")
    builder.build("libffi", builder.depends, *names, "--disable-shared", "--with-pic", "--disable-docs", *NO_STATIC)
    options = ["--without-ensurepip", "--disable-test-modules"]
    if architecture != "x86_64":
        helper = interpreter() or build(zig)
        options += [*names, f"--with-build-python={helper}", *ANSWERS]
    builder.build(f"python{VERSION}", prefix(architecture), *options)
    if architecture == "x86_64":
        fetch_files("musl", WORK)
        program = prefix(architecture) / "bin" / f"python{VERSION}"
        must("patchelf", "--set-interpreter", LOADER, program, cwd=WORK, env=builder.environment)
    made = interpreter(architecture)
    if made is None:
        raise SystemExit("the Python that was built does not start")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="x86_64")
    parser.add_argument("--zig", type=Path, help="the program; without it that of the package ziglang")
    arguments = parser.parse_args()
    zig = arguments.zig or zig_of(Path(sys.executable))
    print(interpreter(arguments.architecture) or build(zig, arguments.architecture))


def zig_of(python: Path) -> Path:
    """The program that the package ziglang has brought to a Python."""
    line = [str(python), "-c", "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / 'zig')"]
    told = subprocess.run(line, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise SystemExit(f"no zig for {python}: pip install ziglang")
    return Path(told.stdout.strip())


if __name__ == "__main__":
    main()
