"""Pools that sections hold frozen, shared by all that run at once; and what a forked process gets rid of.

Sections nest, and several threads may each have one. The first to ask for something changes it, the last to leave
restores what was there before the first.
"""

from __future__ import annotations

import os
import signal
import threading

from .._pool.pool import OnMiss, Pool
from .collector import collector
from .interrupt import Interrupt

_lock = threading.Lock()

Misses = dict[int, int]  # requested bytes -> how often


class _Frozen:
    """A pool frozen by sections: who holds it so, innermost last, and the misses of freezes that are over."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.by_user = pool.frozen
        self.applied: OnMiss | None = None
        self.holders: list[Freeze] = []
        self.earlier: Misses = {}

    def misses(self) -> Misses:
        if not self.by_user and self.applied is None:
            return dict(self.earlier)  # the pool's list is of a freeze before ours
        return _sum(self.earlier, dict(self.pool._misses_by_size()))

    def apply(self) -> None:
        """Bring the pool into the state that its holders want."""
        if self.by_user:
            return
        wanted = self.holders[-1].on_miss if self.holders else None
        if wanted == self.applied or (self.applied is None and self.pool._learning()):
            # While another section learns on this pool, freezing would hide from it what it needs.
            return
        if self.applied is not None and wanted is not None:
            self.earlier = self.misses()  # a new freeze begins a new list
        if wanted is None:
            self.pool.unfreeze()
        else:
            self.pool.freeze(on_miss=wanted)
        self.applied = wanted


_frozen: dict[int, _Frozen] = {}


class Freeze:
    """One section's hold on a frozen pool. A pool that the program froze itself stays as it is."""

    __slots__ = ("_misses_before", "_shared", "on_miss")

    def __init__(self, pool: Pool, on_miss: OnMiss) -> None:
        self.on_miss = on_miss
        with _lock:
            shared = _frozen.get(pool._id())
            if shared is None:
                shared = _frozen[pool._id()] = _Frozen(pool)
            self._shared = shared
            self._misses_before = self._shared.misses()
            self._shared.holders.append(self)
            self._shared.apply()

    def misses(self) -> Misses:
        """Requests the frozen pool could not serve since this hold began: requested bytes -> how often."""
        with _lock:
            now = self._shared.misses()
        before = self._misses_before
        return {size: count - before.get(size, 0) for size, count in now.items() if count > before.get(size, 0)}

    def release(self) -> Misses:
        """Give the hold up and return its misses."""
        misses = self.misses()
        with _lock:
            if self not in self._shared.holders:
                return misses  # released in a child process
            self._shared.holders.remove(self)
            self._shared.apply()
            if not self._shared.holders:
                _frozen.pop(self._shared.pool._id(), None)
        return misses


def frozen_by_section(pool: Pool) -> bool:
    """Whether a running section holds this pool frozen."""
    with _lock:
        return pool._id() in _frozen


def reconsider(pool: Pool) -> None:
    """Freeze a pool whose freezing had to wait until a section had learned on it."""
    with _lock:
        shared = _frozen.get(pool._id())
        if shared is not None:
            shared.apply()


def _sum(a: Misses, b: Misses) -> Misses:
    total = dict(a)
    for size, count in b.items():
        total[size] = total.get(size, 0) + count
    return total


def _in_child() -> None:
    """Let a forked process be an ordinary one: without collections, or with frozen pools, it could not live long.

    What its thread runs at is seen to by the core.
    """
    # The child has one thread, which holds no lock; another one may have held it at the fork.
    global _lock
    _lock = threading.Lock()
    collector.release()
    for shared in _frozen.values():
        shared.holders.clear()
        shared.apply()
    _frozen.clear()
    while isinstance(handler := signal.getsignal(signal.SIGINT), Interrupt):
        handler.remove()


os.register_at_fork(after_in_child=_in_child)
