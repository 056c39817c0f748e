"""What a pool has done: counters that can be printed, subtracted and compared."""

from typing import NamedTuple

from .._support.sizes import format_size


class Stats(NamedTuple):
    """Counters of a pool at one moment.

    ``current_...``, ``requested_bytes``, ``capacity_bytes``, ``resident_bytes``, ``largest_free_bytes`` and
    ``fallback_count`` say how things stand; ``peak_...`` counts since the last ``reset_peak()``, everything else since
    the pool was made. Taken while other threads work, each field is right by itself.

    Two of them can be subtracted, field by field: ``after - before`` says what happened in between.

    Attributes
    ----------
    current_bytes, current_count : int
        Granted to live blocks, and how many there are.
    peak_bytes, peak_count : int
        The most there has been of both. With several threads never too low, but the sum of each thread's own peak.
    total_bytes, total_count : int
        Granted by all allocations the pool has served.
    requested_bytes : int
        Of ``current_bytes``, what was asked for; the rest is rounding.
    capacity_bytes : int
        Memory the pool holds: live and free.
    resident_bytes : int
        Of ``capacity_bytes``, what is in physical memory; arenas of objects count as if Python had written all of them.
    hits, misses : int
        Requests a thread served from its own heap; all other requests.
    growths : int
        Times memory was taken from the kernel.
    kernel_calls : int
        Calls into the kernel about memory.
    returned_bytes : int
        Bytes given back to the kernel, by `Pool.trim`, as idle memory, or in exchange for memory in another place.
    fallbacks : int
        Requests passed on to NumPy's default allocator.
    failures : int
        Requests answered with no memory.
    remote_frees : int
        Blocks freed by another thread than the one they came from.
    largest_free_bytes : int
        The largest block that can be had without growing.
    misuses : int
        Foreign, interior or doubly freed pointers, reported and survived.
    fallback_count : int
        Blocks of the default allocator that are alive on behalf of this pool.
    object_bytes, object_count : int
        Arenas that Python keeps its objects in, as `realtime` and `activate` with ``objects="pool"`` let the pool serve
        them. They are no blocks: nothing above counts them but ``capacity_bytes``, ``resident_bytes``, ``growths`` and
        ``kernel_calls``.
    object_peak_bytes : int
        The most of them there has been.
    object_kept_bytes : int
        Arenas that Python gave back and will get again; free memory, which arrays get as well before the pool grows.
    object_hits, object_misses : int
        Requests for arenas served by a kept one; all other requests.
    object_fallbacks : int
        Of these, passed on to Python's own arena allocator.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> pool = rtpool.Pool("8 MiB", name="frames")
    >>> before = pool.stats()
    >>> with rtpool.handler(pool):
    ...     frame = np.empty(1_000_000, np.uint8)
    >>> (pool.stats() - before).current_count
    1
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
    returned_bytes: int = 0
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

    def __sub__(self, earlier: "Stats") -> "Stats":
        if not isinstance(earlier, Stats):
            return NotImplemented
        return Stats(*[mine - its for mine, its in zip(self, earlier, strict=True)])

    def __str__(self) -> str:
        """A table in which the lines of a group add up to its first."""
        return "\n\n".join("\n".join(line(*row) for row in rows) for rows in _groups(self) if rows)

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        from .._support import html

        rows = [(name, f"{figure:,}", text.strip()) for group in _groups(self) for name, figure, text in group]
        return html.table(rows)


Row = tuple[str, int, str]


def _groups(stats: Stats) -> list[list[Row]]:
    return [_memory_rows(stats), _request_rows(stats), _object_rows(stats), _event_rows(stats)]


def line(name: str, figure: int, note: str = "") -> str:
    """A line of the table."""
    return f"{name:<28}{figure:>20,}{note}".rstrip()


def _memory_rows(stats: Stats) -> list[Row]:
    rounding = stats.current_bytes - stats.requested_bytes
    free = stats.capacity_bytes - stats.current_bytes - stats.object_bytes
    rows = [
        ("memory held", stats.capacity_bytes, ""),
        ("  asked for by live arrays", stats.requested_bytes, f"{stats.current_count:,} blocks"),
        ("  rounding of these", rounding, ""),
        ("  arenas of objects", stats.object_bytes, f"{stats.object_count:,} arenas"),
        ("  free", free, f"largest {format_size(stats.largest_free_bytes)}"),
        ("resident of it", stats.resident_bytes, ""),
        ("peak of live blocks", stats.peak_bytes, f"{stats.peak_count:,} blocks"),
    ]
    if not stats.object_hits + stats.object_misses:
        del rows[3]
    return [(name, size, f" B  {format_size(size):>10}  {note}") for name, size, note in rows]


def _request_rows(stats: Stats) -> list[Row]:
    served = stats.hits + stats.misses - stats.fallbacks - stats.failures
    rows = [
        ("requests", stats.hits + stats.misses, ""),
        ("  hits", stats.hits, "served from the thread's own heap"),
        ("  misses", stats.misses, "everything else"),
        ("of these served by the pool", served, ""),
        ("  by the default allocator", stats.fallbacks, f"{stats.fallback_count:,} alive"),
        ("  not at all", stats.failures, "MemoryError"),
    ]
    return [(name, count, f"    {note}") for name, count, note in rows]


def _object_rows(stats: Stats) -> list[Row]:
    requests = stats.object_hits + stats.object_misses
    if not requests:
        return []
    rows = [
        ("requests for arenas", requests, "Python's objects"),
        ("  kept ones", stats.object_hits, format_size(stats.object_kept_bytes) + " kept now"),
        ("  new ones", stats.object_misses - stats.object_fallbacks, ""),
        ("  by Python's own allocator", stats.object_fallbacks, ""),
    ]
    return [(name, count, f"    {note}") for name, count, note in rows]


def _event_rows(stats: Stats) -> list[Row]:
    rows = [
        ("growths", stats.growths),
        ("kernel calls", stats.kernel_calls),
        ("MiB given back", stats.returned_bytes >> 20),
        ("frees by other threads", stats.remote_frees),
        ("misuses", stats.misuses),
    ]
    return [(name, count, "") for name, count in rows]
