"""Python's cyclic garbage collector while sections run: off, and with all that was alive before set aside.

`gc.freeze` sets aside whatever is alive, and `gc.unfreeze` takes all of it back, whoever had it set aside. So a section
freezes only where nobody has, and thaws only what nobody has frozen since.
"""

from __future__ import annotations

import gc
import threading
from typing import Literal

from .. import _core

GcMode = Literal["freeze", "disable", "keep"]

# Other threads may make or drop a frozen object while the number of them is read twice: not so many.
_MARKS = 64


def frozen_by_program() -> bool:
    """Whether somebody has set objects aside by `gc.freeze`, other than Python itself.

    From 3.12 on every collection moves what is immortal to where `gc.freeze` moves all that is alive, so that there are
    frozen objects in every process (`gc.unfreeze` does no harm to them: the next collection moves them again). But
    whoever froze had the module `gc` at hand, and its contents went with everything else: then a search, which passes
    over frozen objects, does not find them.
    """
    if gc.get_freeze_count() == 0:
        return False
    if _core.object_arenas_refusal() == "free-threaded":
        return True  # in such a build what is immortal is not the collector's, and a search finds frozen objects
    contents = vars(gc)
    return not any(one is contents for one in gc.get_referrers(gc.get_freeze_count))


class Collector:
    """What sections do to the collector, all that run at once together.

    The first to ask for something changes it, the last to leave restores what was there before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._users = 0
        self._freezers = 0
        self._was_enabled = False
        self._marks: list[list[None]] | None = None  # made right after freezing; None: not frozen by sections

    def enter(self, mode: GcMode) -> None:
        """Keep collections out of the caller's section."""
        if mode == "freeze":
            # Before the lock and before disabling: a collection runs finalizers, which may do anything.
            gc.collect()
        with self._lock:
            if self._users == 0:
                self._was_enabled = gc.isenabled()
            self._users += 1
            gc.disable()
            if mode == "freeze":
                self._freezers += 1
                if self._freezers == 1 and not frozen_by_program():
                    gc.freeze()
                    self._marks = [[] for _ in range(_MARKS)]

    def leave(self, mode: GcMode) -> None:
        """Undo one `enter` of the same mode."""
        with self._lock:
            if self._users == 0:
                return  # released in a child process
            if mode == "freeze":
                self._freezers -= 1
                if self._freezers == 0:
                    self._thaw()
            self._users -= 1
            if self._users == 0 and self._was_enabled:
                gc.enable()

    def release(self) -> None:
        """In a forked child: give the collector back although sections hold it; their `leave` will change nothing."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._thaw()
        if self._users and self._was_enabled:
            gc.enable()
        self._forget()

    def _thaw(self) -> None:
        """Take back what sections froze, unless the program has frozen more meanwhile: then all is as it wants it."""
        if self._marks is None:
            return
        # The marks are younger than our freeze. Where they are frozen, somebody has frozen since, and the number of
        # frozen objects falls with them.
        before = gc.get_freeze_count()
        self._marks = None
        if before - gc.get_freeze_count() < _MARKS // 2:
            gc.unfreeze()


collector = Collector()
