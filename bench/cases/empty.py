"""`np.empty(n, np.uint8)` and its free, 8 bytes to 1 GiB. Nothing is written: this is the allocator alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

INNER = 1000
NAMES = [str(2**e) for e in (3, 6, 10, 12, 16, 20, 22, 24, 26, 28, 30)]


def build(name: str) -> Callable[[], Any]:
    size, empty, dtype = int(name), np.empty, np.dtype(np.uint8)

    def iteration() -> None:
        for _ in repeat(None, INNER):
            empty(size, dtype)

    return iteration
