"""What the suites of C++ programs need of the package, from its sources: they run where rtpool is not installed."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from pathlib import Path
from types import ModuleType

_TREE = Path(__file__).resolve().parent.parent
_PACKAGE = "sources_of_rtpool"


def load(name: str) -> ModuleType:
    """Load a module of the package by its name below it, without the package's own: it needs nothing that was built."""
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(_TREE / "numpy_handler" / "rtpool")]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")


def machine() -> dict[str, str | int | float | None]:
    """Return what a reader needs to know about where a figure comes from; without the package what others tell."""
    try:
        from rtpool.cli import _machine
    except ModuleNotFoundError:
        version = re.search(r"version: '([^']+)'", (_TREE / "meson.build").read_text(encoding="utf-8"))
        model = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        huge = re.search(r"\[(\w+)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8"))
        return {
            "rtpool": version and version[1],
            "python": platform.python_version(),
            "processor": model and model[1],
            "processors": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
            "libc": " ".join(platform.libc_ver()),
            "kernel_page": os.sysconf("SC_PAGE_SIZE"),
            "transparent_huge_pages": huge and huge[1],
        }
    return _machine.describe()
