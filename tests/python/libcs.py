"""Which libc the tests run with, and what only some of them can."""

from __future__ import annotations

import platform

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
MALLOC = "tune" if GLIBC else "keep"  # the most that can be had
# Every block of 128 KiB and more is a mapping of its own in musl, which is gone as soon as the block is free.
keeps_memory = pytest.mark.skipif(
    not GLIBC, reason="this libc's malloc gives memory back as it is freed, and takes no settings"
)
