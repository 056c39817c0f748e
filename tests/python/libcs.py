"""Which libc the tests run with, and what only some of them can."""

from __future__ import annotations

import platform

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
MALLOC = "tune" if GLIBC else "keep"  # the most that can be had
# musl's malloc gives memory back as it is freed, every block of 128 KiB and more by itself, and takes no settings. So
# what bypasses the pool faults in each iteration: buffers of NumPy's iterators, scratch of sorts, large lists.
keeps_memory = pytest.mark.skipif(
    not GLIBC, reason="this libc's malloc gives memory back as it is freed, and takes no settings"
)
