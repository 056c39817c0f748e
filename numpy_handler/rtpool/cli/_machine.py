"""The machine and the versions a figure was measured with."""

from __future__ import annotations

import os
import platform

import numpy as np

import rtpool
from rtpool import _core
from rtpool._realtime.probe import Machine
from rtpool._support.libc import libc


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def describe() -> dict[str, str | int | float | None]:
    """Return what a reader needs to know about where a figure comes from."""
    return {
        "rtpool": rtpool.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": Machine().processor(),
        "processors": _processors(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(libc()).strip(),
        "kernel_page": os.sysconf("SC_PAGE_SIZE"),
        "transparent_huge_pages": _core.transparent_huge_pages(),
    }
