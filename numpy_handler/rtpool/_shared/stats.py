"""Figures of a shared pool."""

from __future__ import annotations

from typing import NamedTuple

from .._pool.stats import Stats


class SharedStats(NamedTuple):
    """Counters of a shared pool. Subtracting two gives what happened in between; printing one gives a table.

    The fields of `Stats` come first. Those that say what there is now (``current_*``, ``requested_bytes``,
    ``capacity_bytes``, ``resident_bytes``, ``largest_free_bytes``) are of all processes, the others of this one.
    ``growths`` counts the times this process took memory from the pool, ``remote_frees`` its blocks that another
    process freed. ``object_*`` are 0: Python's objects never come to lie in shared memory.

    Attributes
    ----------
    processes : int
        Processes that have the pool open.
    shared_count : int
        Blocks that are shared at this moment.
    in_flight_count : int
        Pickled handles under way, not opened yet.
    recovered_processes : int
        Processes that have ended since the pool was made, in order or not, and whose memory was recovered.
    own_bytes, own_count : int
        Of ``current_bytes`` and ``current_count``, those of this process.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> with rtpool.SharedPool.create("4 MiB") as pool:
    ...     with rtpool.handler(pool):
    ...         frame = np.zeros((480, 640), np.uint8)
    ...     pool.stats().own_count, pool.stats().processes
    (1, 1)
    """

    current_bytes: int = 0
    current_count: int = 0
    peak_bytes: int = 0
    peak_count: int = 0
    total_bytes: int = 0
    total_count: int = 0
    requested_bytes: int = 0
    capacity_bytes: int = 0
    resident_bytes: int = 0
    hits: int = 0
    misses: int = 0
    growths: int = 0
    kernel_calls: int = 0
    fallbacks: int = 0
    failures: int = 0
    remote_frees: int = 0
    largest_free_bytes: int = 0
    misuses: int = 0
    fallback_count: int = 0
    object_bytes: int = 0
    object_count: int = 0
    object_peak_bytes: int = 0
    object_kept_bytes: int = 0
    object_hits: int = 0
    object_misses: int = 0
    object_fallbacks: int = 0
    processes: int = 0
    shared_count: int = 0
    in_flight_count: int = 0
    recovered_processes: int = 0
    own_bytes: int = 0
    own_count: int = 0

    def __sub__(self, earlier: SharedStats) -> SharedStats:
        if not isinstance(earlier, SharedStats):
            return NotImplemented
        return SharedStats(*[mine - its for mine, its in zip(self, earlier, strict=True)])

    def __str__(self) -> str:
        rows = [
            ("processes", self.processes),
            ("  ended and recovered", self.recovered_processes),
            ("shared blocks", self.shared_count),
            ("handles under way", self.in_flight_count),
            ("live blocks of this process", self.own_count),
        ]
        common = str(Stats._make(self[: len(Stats._fields)]))
        return "\n".join([common, "", *(f"{name:<28}{count:>20,}" for name, count in rows)])
