"""The program's source, where it is there. A trace names files: only ordinary ones of a sensible size are read."""

from __future__ import annotations

import linecache
import os

_MOST_BYTES = 16 << 20


def lines(file: str) -> list[str]:
    """All lines of a file; none if it is not there. Cells of notebooks are where Python keeps them."""
    if file not in linecache.cache:
        try:
            if not os.path.isfile(file) or os.path.getsize(file) > _MOST_BYTES:
                return []
        except (OSError, ValueError):
            return []
    return linecache.getlines(file)


def line(file: str, number: int) -> str:
    """One line, from 1; empty if it is not there."""
    found = lines(file)
    return found[number - 1] if 0 < number <= len(found) else ""
