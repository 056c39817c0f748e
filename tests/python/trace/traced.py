"""Traces of a function's iterations, and a program that makes temporaries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rtpool

PYTHON_KEEPS_COLUMNS = sys.version_info >= (3, 11)

PROGRAM = """
import numpy as np

def step(a, b):
    t = a * b + a
    u = np.sqrt(t - b)
    mask = u > 0.5
    return float(u.sum()) + int(mask.sum())
"""


def traced(pool: rtpool.Pool, function: Callable[[], object], turns: int = 20) -> rtpool.Trace:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        for _ in recording.iterations(range(turns)):
            function()
    return recording.trace


def defined(text: str, path: Path) -> dict[str, Any]:
    """What a program defines, whose source is at a path, where reports look for it."""
    path.write_text(text, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(text, str(path), "exec"), names)
    return names
