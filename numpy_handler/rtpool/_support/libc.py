"""The libc that this process runs on."""

from __future__ import annotations

import functools
import platform

GLIBC = "glibc"


@functools.cache
def libc() -> tuple[str, str]:
    """Name and version. Python knows musl since 3.14, and there is no third one that modules of rtpool load with."""
    name, version = platform.libc_ver()
    # Before 3.14 what it finds in a program for musl is nothing, or the name of a file.
    return (name, version) if name in (GLIBC, "musl") else ("musl", "")
