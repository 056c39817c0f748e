"""Figures of a shared pool."""

from __future__ import annotations

from typing import NamedTuple

from .._pool.stats import Stats, line


class SharedStats(NamedTuple):
    """Counters of a shared pool. Subtracting two gives what happened in between; printing one gives a table.

    What any pool counts, the fields of `Stats`, is in `common` and can be had directly as well: ``stats.hits``. Of
    these, what there is now (``current_*``, ``requested_bytes``, ``capacity_bytes``, ``resident_bytes``,
    ``largest_free_bytes``) is of all processes, the rest of this one. ``growths`` counts the times this process took
    memory from the pool, ``remote_frees`` its blocks that another process freed. ``object_*`` are 0: Python's objects
    never come to lie in shared memory.

    Attributes
    ----------
    common : Stats
        What any pool counts.
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

    common: Stats = Stats()
    processes: int = 0
    shared_count: int = 0
    in_flight_count: int = 0
    recovered_processes: int = 0
    own_bytes: int = 0
    own_count: int = 0

    def __getattr__(self, name: str) -> int:
        figure: int = getattr(self.common, name)
        return figure

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *Stats._fields})

    def __sub__(self, earlier: SharedStats) -> SharedStats:
        if not isinstance(earlier, SharedStats):
            return NotImplemented
        further = [mine - its for mine, its in zip(self[1:], earlier[1:], strict=True)]
        return SharedStats(self.common - earlier.common, *further)

    def __str__(self) -> str:
        return "\n".join([str(self.common), "", *(line(name, count) for name, count in self._rows())])

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        from .._support import html

        return self.common._repr_html_() + html.table((name, f"{count:,}") for name, count in self._rows())

    def _rows(self) -> list[tuple[str, int]]:
        return [
            ("processes", self.processes),
            ("  ended and recovered", self.recovered_processes),
            ("shared blocks", self.shared_count),
            ("handles under way", self.in_flight_count),
            ("live blocks of this process", self.own_count),
        ]
