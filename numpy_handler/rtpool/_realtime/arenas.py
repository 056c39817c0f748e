"""The arenas of Python's own objects while a section runs: whether the pool serves them, and what lies ready."""

from __future__ import annotations

from collections.abc import Callable

from .. import _core
from .._pool.objects import Objects, make_room, refusal
from .._pool.plan import Plan
from .._pool.pool import Pool

# Arenas beyond the plan: where objects come to lie varies a little from iteration to iteration.
_SPARE = 1


class Arenas:
    """What one section has of the service."""

    __slots__ = ("_begun", "_state")

    def __init__(self) -> None:
        self._state = Objects()
        self._begun: int | None = None  # the whole process's misses when this section began to count

    def enter(self, pool: Pool, *, wanted: bool) -> Callable[[], object] | None:
        """Let the pool serve, where Python asks anybody; what undoes it."""
        if not wanted:
            self._state = Objects(reason="objects='keep'")
        elif _core.enter_objects(pool):
            self._state = Objects(served=True)
            return lambda: _core.leave_objects(pool)
        else:
            self._state = Objects(reason=refusal() or "another arena allocator was set after rtpool's")
        return None

    def make_room(self, pool: Pool, plan: Plan | None, held: int) -> None:
        """Make what the plan needs ready, but for `held` that Python has already, and one to spare."""
        if not self._state.served or plan is None:
            return
        ready, size, missing = make_room(pool, plan.objects, held=held, spare=_SPARE)
        self._state = self._state._replace(ready=ready, size=size, missing=missing)

    def begin(self) -> None:
        """Count misses from here on."""
        self._begun = _core.object_misses()

    def end(self) -> None:
        """Count no more."""
        self._state = self.state
        self._begun = None

    @property
    def state(self) -> Objects:
        """How it went so far."""
        if not self._state.served or self._begun is None:
            return self._state
        return self._state._replace(misses=_core.object_misses() - self._begun)
