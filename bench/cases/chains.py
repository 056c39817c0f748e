"""Arithmetic on float64 arrays that stay in the caches: what alignment alone does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = [str(2**e) for e in range(11, 17)]


def build(name: str) -> Callable[[], Any]:
    n = int(name)
    rng = np.random.default_rng(0)
    a, b, c = rng.random(n), rng.random(n), rng.random(n)

    def iteration() -> Any:
        # Every operand made here, so that each contestant's own alignment is what counts.
        x = a + b
        y = b + c
        z = x * y
        w = z - x
        v = w * z
        u = v + y
        t = u * w
        s = t - v
        r = s * u
        return r + t

    return iteration
