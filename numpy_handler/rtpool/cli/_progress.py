"""One line of progress on a terminal; nothing where standard error is a file or a pipe."""

from __future__ import annotations

import sys


class Progress:
    """A counter of steps on standard error.

    Parameters
    ----------
    total : int
        How many steps there will be.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """Say what begins now."""
        self._done += 1
        if self._shown:
            sys.stderr.write(f"\r\x1b[K[{self._done}/{self._total}] {what}")
            sys.stderr.flush()

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
