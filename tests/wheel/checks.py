"""What must hold of a source archive and of a wheel, each as (what, whether, what was seen)."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from targets import suffix

Check = tuple[str, bool, str]


def output(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def of_archive(archive: Path) -> Iterator[Check]:
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    bad = [name for name in names if re.search(r"\.(so|o|pyc)$|/(build|\.venv)/", name)]
    yield "no build outputs in the source archive", not bad, "\n".join(bad)


def of_wheel(wheel: Path, into: Path) -> Iterator[Check]:
    """Unpacks it into a folder, whose module `binary_of` gives."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        file.extractall(into)
    wanted = ("rtpool/py.typed", "rtpool/_core.pyi", "LICENSE", "rtpool.pth", "_rtpool_start.py", "rtpool_pytest.py")
    missing = [end for end in wanted if not any(name.endswith(end) for name in names)]
    yield "py.typed, stubs, licence and start-up files in the wheel", not missing, str(missing)
    interface = ("include/rtpool/rtpool.h", "include/rtpool/rtpool.hpp", "__init__.pxd", "pkgconfig/rtpool.pc")
    lacking = {f"rtpool/{name}" for name in interface} - set(names)
    yield "headers, Cython's declarations and rtpool.pc in the wheel", not lacking, str(lacking)
    yield "the command rtpool-config", any(name.endswith("entry_points.txt") for name in names), ""
    libraries = [name for name in names if ".libs/" in name]
    yield "no libraries taken in", not libraries, str(libraries)
    binary = binary_of(into)
    names_for = module_names(wheel.name)
    seen = f"{binary.name}, not {names_for}"
    yield "a module that those who choose the wheel look for", binary.name in names_for, seen
    machine = re.search(r"Machine:\s*(.+)", output("readelf", "--file-header", binary))
    said = machine.group(1) if machine else "nothing"
    yield "a module for the wheel's processors", MACHINES[architecture(wheel.name)] in said, said
    # musl loads no module that wants thread-local storage at a place fixed when the program starts.
    fixed = "STATIC_TLS" in said_of(binary)
    yield "thread-local storage that its libc has", not (fixed and "musllinux" in wheel.name), "STATIC_TLS"
    missing = sorted(of_newer_libc(binary, "musllinux" in wheel.name))
    # Of relative addresses in the short form, which came with musl 1.2.4 and glibc 2.36.
    yield "relocations that the oldest libc it is for knows", "(RELR)" not in said_of(binary), "RELR"
    yield "functions that the oldest libc it is for has", not missing, ", ".join(missing)
    for what, true in hardening(binary).items():
        yield what, true, ""


# As `readelf` calls them.
MACHINES = {"x86_64": "X86-64", "aarch64": "AArch64"}


def architecture(wheel: str) -> str:
    """The processors that a wheel's name says it is for."""
    return next(name for name in MACHINES if wheel.endswith(f"_{name}.whl"))


def module_names(wheel: str) -> list[str]:
    """What the module has to be called so that the Python that chose a wheel by its name imports it."""
    found = re.search(r"-cp(\d)(\d+)-cp\1\2(t?)-(\S+)\.whl$", wheel)
    if found is None:
        raise SystemExit(f"{wheel} is not the name of a wheel for one CPython")
    version = int(found.group(1)), int(found.group(2))
    libcs = {"musl" if platform.startswith("musl") else "glibc" for platform in found.group(4).split(".")}
    return [f"_core{suffix(version, found.group(3), architecture(wheel), libc)}" for libc in sorted(libcs)]


def binary_of(folder: Path) -> Path:
    (binary,) = folder.glob("rtpool/_core*.so")
    return binary


def said_of(binary: Path) -> str:
    """What the dynamic linker is told of a module."""
    return output("readelf", "--dynamic", "--wide", binary)


def hardening(binary: Path) -> dict[str, bool]:
    """What the linked file says of itself."""
    dynamic = said_of(binary)
    segments = output("readelf", "--program-headers", "--wide", binary)
    exported, wanted = symbols(binary)
    stack = next((line for line in segments.splitlines() if "GNU_STACK" in line), "RWE")
    fortified = any(re.fullmatch(r"__\w+_chk", name) for name in wanted)
    # musl has no fortified calls.
    musl = re.search(r"NEEDED.*\[libc\.musl-", dynamic) is not None
    return {
        "exports PyInit__core only": exported == {"PyInit__core"},
        "read-only relocations": "GNU_RELRO" in segments,
        "bound at load": "BIND_NOW" in dynamic or re.search(r"FLAGS.*NOW", dynamic) is not None,
        "no executable stack": "RWE" not in stack,
        # Of libc, or of zig's own runtime.
        "stack protector": "__stack_chk_fail" in output("readelf", "--syms", "--wide", binary),
        "fortified calls": fortified or musl,
        "no run path": "RPATH" not in dynamic and "RUNPATH" not in dynamic,
    }


def symbols(binary: Path) -> tuple[set[str], set[str]]:
    """The names that a module gives to others, and those it takes from them."""
    given: set[str] = set()
    taken: set[str] = set()
    for words in dynamic_symbols(binary):
        (taken if words[6] == "UND" else given).add(words[7].partition("@")[0])
    return given, taken


def dynamic_symbols(binary: Path) -> Iterator[list[str]]:
    """The columns that `readelf` shows of each name that others see or give."""
    for line in output("readelf", "--dyn-syms", "--wide", binary).splitlines():
        words = line.split()
        if len(words) >= 8 and words[0][:-1].isdigit() and words[4] != "LOCAL":
            yield words


# What musl got after 1.2.0, and headers of today declare.
NEWER_IN_MUSL = {
    *("_Fork", "gettid", "reallocarray", "tcgetwinsize", "tcsetwinsize"),  # 1.2.2
    *("pthread_getname_np", "qsort_r"),  # 1.2.3
    *("preadv2", "pwritev2", "statx"),  # 1.2.5
    *("posix_getdents", "renameat2"),
}


def of_newer_libc(binary: Path, musl: bool) -> set[str]:
    """Names that no libc of the wheel's age gives: it would be installed there, and not be imported.

    Nothing says so when it is linked, as the names of Python are not known then either. What a glibc of that age has
    was found when it was linked, and carries a version.
    """
    wanted = {words[7] for words in dynamic_symbols(binary) if words[6] == "UND" and words[4] != "WEAK"}
    if musl:
        return wanted & NEWER_IN_MUSL
    return {name for name in wanted if "@" not in name and not name.startswith(("Py", "_Py"))}


def needed(binary: Path) -> list[str]:
    """The libraries it asks for."""
    return re.findall(r"NEEDED.*\[(.+)\]", said_of(binary))
