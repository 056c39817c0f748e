"""Other allocators on this machine: libraries that take malloc's place in a process that is started with them."""

from __future__ import annotations

import glob
from typing import NamedTuple

_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
# File and Debian's package.
LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "mimalloc": ("libmimalloc.so.2*", "libmimalloc2.0"),
}
GLIBC = "glibc"
NAMES = (GLIBC, *LIBRARIES)


class Peer(NamedTuple):
    """An allocator behind malloc: what starts a process with it, or why it is not there."""

    name: str
    environment: dict[str, str]
    missing: str


def find(name: str) -> Peer:
    """Find one of `NAMES`."""
    if name == GLIBC:
        return Peer(name, {}, "")
    library, package = LIBRARIES[name]
    for folder in _FOLDERS:
        for path in sorted(glob.glob(f"{folder}/{library}")):
            return Peer(name, {"LD_PRELOAD": path}, "")
    return Peer(name, {}, f"{library} not found (Debian: {package})")
