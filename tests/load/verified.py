"""Arrays whose every byte is known: a block handed out twice, moved wrongly or lost is found when it is checked."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

MOST_BYTES = 8 << 20

# Made before any pool is in use, so that checking needs no memory of the pools under test but two temporaries.
_RAMP = np.arange(MOST_BYTES // 8, dtype=np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_seeds = itertools.count(1)


class Damaged(Exception):
    """An array does not hold what was written to it."""


def fill(array: np.ndarray[Any, Any], seed: int) -> None:
    """Write the pattern of a seed into a contiguous array of bytes."""
    words = array[: array.nbytes // 8 * 8].view(np.uint64)
    np.add(_RAMP[: words.size], np.uint64(seed) * _MIX, out=words)
    array[words.size * 8 :] = seed & 0xFF


def check(array: np.ndarray[Any, Any], seed: int) -> None:
    """Raise `Damaged` unless the array holds the pattern of that seed."""
    words = array[: array.nbytes // 8 * 8].view(np.uint64)
    wrong = np.flatnonzero(words - _RAMP[: words.size] != np.uint64(seed) * _MIX)
    tail = array[words.size * 8 :]
    if wrong.size or (tail != seed & 0xFF).any():
        first = int(wrong[0]) * 8 if wrong.size else words.size * 8
        raise Damaged(f"array of {array.nbytes} bytes at {array.ctypes.data:#x}: wrong from byte {first} on")


class Verified:
    """An array of bytes with a pattern of its own."""

    __slots__ = ("array", "seed")

    def __init__(self, size: int, zeroed: bool = False) -> None:
        self.seed = next(_seeds) & 0x7FFFFFFF
        with np.errstate(over="ignore"):
            if zeroed:
                self.array = np.zeros(size, np.uint8)
                if self.array.any():
                    raise Damaged(f"np.zeros({size}) is not zero at {self.array.ctypes.data:#x}")
            else:
                self.array = np.empty(size, np.uint8)
            fill(self.array, self.seed)

    def check(self) -> None:
        """Raise `Damaged` unless the array still holds its pattern."""
        with np.errstate(over="ignore"):
            check(self.array, self.seed)

    def resize(self, size: int) -> None:
        """Change the length in place (realloc), check what stayed, and write the rest anew."""
        kept = min(size, self.array.nbytes) // 8 * 8
        self.array.resize(size, refcheck=False)
        with np.errstate(over="ignore"):
            check(self.array[:kept], self.seed)
            fill(self.array, self.seed)
