"""Ctrl-C in a real-time loop: the iteration under way is finished, then the loop ends and the program goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """Turns SIGINT into the end of a section's loop; a second one raises `KeyboardInterrupt` as ever.

    Only in the main thread, and only where Python's own handler was in force: a program that handles SIGINT itself
    keeps doing so.
    """

    __slots__ = ("_is_iterating", "_previous", "_stop", "count")

    def __init__(self, is_iterating: Callable[[], bool], stop: Callable[[], Any]) -> None:
        self._is_iterating = is_iterating
        self._stop = stop
        self._previous: Any = None  # what SIGINT did before; None until installed
        self.count = 0

    def install(self) -> bool:
        """Take SIGINT over; false where it is not ours to take."""
        if threading.current_thread() is not threading.main_thread():
            return False
        current: Any = signal.getsignal(signal.SIGINT)
        if not isinstance(current, Interrupt) and current != signal.default_int_handler:
            return False
        self._previous = current
        signal.signal(signal.SIGINT, self)
        return True

    def remove(self) -> None:
        """Give SIGINT back, unless the program has set a handler of its own meanwhile."""
        previous: Any = self._previous
        if previous is not None and signal.getsignal(signal.SIGINT) == self:
            signal.signal(signal.SIGINT, previous)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 or not self._is_iterating():
            signal.default_int_handler(number, frame)
        self._stop()
        # A section around this one ends as well, after its own iteration.
        outer = self._previous
        if isinstance(outer, Interrupt) and outer._is_iterating():
            outer(number, frame)
