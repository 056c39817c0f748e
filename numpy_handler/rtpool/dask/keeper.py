"""The thread beside a worker that gives memory back and takes the figures.

Dask acts on the resident size of the process: from its target (0.6 of the memory limit) on it writes data to disk,
later it pauses and ends the worker. What a pool keeps for later is no data, so it has to go before. Giving back enters
the kernel for milliseconds; it never happens on the event loop, which has heartbeats to send.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from .._pool.pool import Pool

LEAST = 16 << 20  # bytes that are worth going to the kernel for
SHORTEST = 0.1  # seconds between two looks


def resident() -> int:
    """The resident size of this process, which Dask goes by, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Keeper(threading.Thread):
    """Looks at a pool a few times in `idle` seconds until it is stopped.

    Free memory goes back as soon as the process is above `pressure` of its memory limit, and what has not been used for
    `idle` seconds in any case. Whoever reads `figures` gets those of the last look.
    """

    def __init__(
        self, pool: Pool, *, memory_limit: int, idle: float, pressure: float, further: Callable[[], None] | None = None
    ) -> None:
        super().__init__(name="rtpool-keeper", daemon=True)
        self._pool, self._memory_limit, self._idle, self._pressure = pool, memory_limit, idle, pressure
        self._further = further
        self._over = threading.Event()
        self._returned_before = pool.stats().returned_bytes
        self.figures: dict[str, Any] = {}
        self._look()

    def stop(self) -> None:
        """End it, and wait until it has."""
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(max(self._idle / 4, SHORTEST)):
            self._look()
            if self._further is not None:
                self._further()

    def _look(self) -> None:
        pool, stats = self._pool, self._pool.stats()
        pressed = self._memory_limit > 0 and resident() > self._pressure * self._memory_limit
        if not pressed:
            pool.trim(older_than=self._idle)
        elif stats.resident_bytes - stats.current_bytes >= LEAST:
            pool.trim()
        stats = pool.stats()
        self.figures = {
            "used": stats.current_bytes,
            "idle": max(stats.resident_bytes - stats.current_bytes, 0),
            "given_back": stats.returned_bytes - self._returned_before,
            "peak": stats.peak_bytes,
            "hits": stats.hits,
            "misses": stats.misses,
            "fallbacks": stats.fallbacks,
        }
