"""Arithmetic on float64 arrays that stay in the caches: what alignment alone does.

By hand, the chain writes to buffers that are made once and begin on a page: arithmetic and nothing else, which bounds
what any allocator can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

WAYS = ("out",)
NAMES = [str(2**e) for e in range(11, 17)]


def on_a_page(n: int) -> Any:
    room = np.zeros(n * 8 + 4096, np.uint8)
    begin = -room.ctypes.data % 4096
    return room[begin : begin + n * 8].view(np.float64)


def build(name: str, *, way: str = "plain") -> Callable[[], Any]:
    n = int(name)
    rng = np.random.default_rng(0)
    a, b, c = rng.random(n), rng.random(n), rng.random(n)
    # Every operand made here, so that each contestant's own alignment is what counts.

    def iteration() -> Any:
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

    if way != "out":
        return iteration

    values = on_a_page(n), on_a_page(n), on_a_page(n)
    for value, source in zip(values, (a, b, c), strict=True):
        np.copyto(value, source)
    a, b, c = values
    x, y, z, w, v, u, t, s, r, q = (on_a_page(n) for _ in range(10))

    def by_hand_iteration() -> Any:
        np.add(a, b, out=x)
        np.add(b, c, out=y)
        np.multiply(x, y, out=z)
        np.subtract(z, x, out=w)
        np.multiply(w, z, out=v)
        np.add(v, y, out=u)
        np.multiply(u, w, out=t)
        np.subtract(t, v, out=s)
        np.multiply(s, u, out=r)
        return np.add(r, t, out=q)

    return by_hand_iteration
