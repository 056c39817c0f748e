"""Who is compared: an allocator behind NumPy, chosen by the environment, by a context, or for the whole process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sources

# Who run a version of the code of their own, in the suites that have it.
REWRITTEN = ("out", "numba")
# glibc as far as it can be tuned from outside: nothing by mmap, nothing trimmed, the heap grown in big steps.
_TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@dataclass(frozen=True)
class Contestant:
    """One allocator.

    `environment` is set for its process; `missing` says why it cannot take part, or is empty.
    """

    name: str
    title: str
    environment: dict[str, str] = field(default_factory=dict)
    missing: str = ""


def _preloaded(name: str) -> Contestant:
    peer = sources.load("_replay.peers").find(name)  # the package is loaded by who is compared, not by who compares
    return Contestant(name, f"{name} by LD_PRELOAD", peer.environment, peer.missing)


def _needs(module: str) -> str:
    return "" if importlib.util.find_spec(module) else f"{module} is not installed"


def everyone() -> list[Contestant]:
    """Return all contestants, those that cannot take part here included."""
    return [
        Contestant("numpy", "NumPy's default"),
        Contestant("tuned", "NumPy's default, glibc tuned by MALLOC_*", dict(_TUNED)),
        *map(_preloaded, ("jemalloc", "tcmalloc", "mimalloc")),
        Contestant("numpy-allocator", "numpy-allocator over libc", missing=_needs("numpy_allocator")),
        Contestant("rtpool", "rtpool.handler()", missing=_needs("rtpool")),
        Contestant("rtpool-active", 'rtpool.activate(malloc="tune")', missing=_needs("rtpool")),
        Contestant("out", "NumPy's default, by hand with out="),
        Contestant("numba", "compiled by Numba", missing=_needs("numba")),
    ]


def start(name: str) -> Callable[[], AbstractContextManager[object]]:
    """Do in this process what a contestant does at its start; return what each batch of iterations is run inside of."""
    if name == "rtpool":
        import rtpool

        return rtpool.handler
    if name == "rtpool-active":
        import rtpool

        rtpool.activate(malloc="tune")
    if name == "numpy-allocator":
        import numpy_allocator

        libc = ctypes.CDLL(None)
        size, block = ctypes.c_size_t, ctypes.c_void_p
        signatures: dict[str, tuple[Any, ...]] = {
            "malloc": (block, size),
            "calloc": (block, size, size),
            "realloc": (block, block, size),
            "free": (None, block),
        }
        functions = {f"_{name}_": ctypes.CFUNCTYPE(*types)((name, libc)) for name, types in signatures.items()}
        allocator = numpy_allocator.type("libc_allocator", (), functions)
        return lambda: allocator
    return contextlib.nullcontext
