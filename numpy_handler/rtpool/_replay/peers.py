"""Other allocators on this machine: libraries that take malloc's place in a process that is started with them."""

from __future__ import annotations

import glob
from typing import NamedTuple

from .._support.libc import GLIBC, libc

_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
# File and Debian's package.
LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "mimalloc": ("libmimalloc.so.2*", "libmimalloc2.0"),
}
LIBC = libc()[0]  # the allocator that is there without a library
NAMES = tuple(dict.fromkeys((LIBC, GLIBC, *LIBRARIES)))


class Peer(NamedTuple):
    """An allocator behind malloc: what starts a process with it, or why it is not there."""

    name: str
    environment: dict[str, str]
    missing: str


def find(name: str) -> Peer:
    """Find one of `NAMES`."""
    if name == LIBC:
        return Peer(name, {}, "")
    if name == GLIBC:
        return Peer(name, {}, f"this Python runs on {LIBC}")
    library, package = LIBRARIES[name]
    paths = [path for folder in _FOLDERS for path in sorted(glob.glob(f"{folder}/{library}"))]
    for path in paths:
        if _is_for_this_process(path):
            return Peer(name, {"LD_PRELOAD": path}, "")
    if paths:
        return Peer(name, {}, f"{paths[0]} is for another libc or processor")
    return Peer(name, {}, f"{library} not found (Debian: {package})")


def _is_for_this_process(path: str) -> bool:
    """Whether a process like this one can be started with a library.

    glibc would go on without one that is for another processor, and its own malloc have the other's name; musl would
    not start.
    """
    with open(path, "rb") as file, open("/proc/self/exe", "rb") as program:
        library = file.read()
        return _processors(library) == _processors(program.read(20)) and (b"GLIBC_2." in library) == (LIBC == GLIBC)


def _processors(elf: bytes) -> tuple[bytes, bytes]:
    """Of a file's head: width and order of words, and the kind of processor."""
    return elf[4:6], elf[18:20]
