"""The libc that this process runs on."""

from __future__ import annotations

import functools
import platform

GLIBC = "glibc"


@functools.cache
def libc() -> tuple[str, str]:
    """Name and version. Python knows musl since 3.14, and there is no third one that modules of rtpool load with."""
    name, version = platform.libc_ver()
    return name or "musl", version
