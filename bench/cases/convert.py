"""uint8 to float64 in two lines, and a 1080p frame: the work of `python -m rtpool demo`, up to 1e8 values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtpool.cli import _work

WAYS = ("out",)
NAMES = [*(f"two_lines:{10**e}" for e in range(4, 9)), "one_line:10000000", "frames:1080"]


def build(name: str, *, way: str = "plain") -> Callable[[], Any]:
    kind, _, size = name.partition(":")
    if kind == "frames":
        work = _work.frames()
    else:
        work = (_work.one_line if kind == "one_line" else _work.two_lines)(int(size))
    return work.by_hand if way == "out" else work.plain
