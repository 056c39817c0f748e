"""What a process shows, as src/live/page.hpp lays it out. Nothing in it is trusted: `PageError` if it does not fit."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"rtpool\0\1"
VERSION = 1
MOST_BYTES = 1 << 20
MOST_POOLS, MOST_SECTIONS = 64, 32
FROZEN, SHARED, DEBUG = 1, 2, 4

HEAD = struct.Struct("<8sIIIIIIQIIIIII")
_POOL = struct.Struct("<64sQQI12x")
_WORD = 8

# In the order of pool::Stats; a newer process may show more.
FIELDS = (
    "current_bytes", "current_count", "peak_bytes", "peak_count", "total_bytes", "total_count", "requested_bytes",
    "capacity_bytes", "resident_bytes", "hits", "misses", "growths", "kernel_calls", "returned_bytes", "fallbacks",
    "failures", "remote_frees", "misuses", "largest_free_bytes", "fallback_count", "object_bytes", "object_count",
    "object_peak_bytes", "object_kept_bytes", "object_hits", "object_misses", "object_fallbacks",
)  # fmt: skip
_SECTION_FIELDS = 9


class PageError(ValueError):
    """A page is none, or of a version that this cannot read; the text says which."""


class Head(NamedTuple):
    """The first bytes of a page."""

    magic: bytes
    version: int
    bytes: int
    asked: int
    answered: int
    sequence: int
    process: int
    instant: int
    pools: int
    sections: int
    pool_bytes: int
    section_bytes: int
    stats_fields: int
    section_fields: int


class PoolFigures(NamedTuple):
    """A pool of a process. `stats`: as `rtpool.Stats`, by name."""

    name: str
    id: int
    limit: int
    frozen: bool
    shared: bool
    debug: bool
    stats: dict[str, int]


class SectionFigures(NamedTuple):
    """A real-time section that runs. Instants of the monotonic clock and spans in nanoseconds.

    `last_instant` is 0 as long as nothing overran.
    """

    thread: int
    begun: int
    iterations: int
    overruns: int
    skipped: int
    period: int
    last_index: int
    last_instant: int
    last_duration: int


class Page(NamedTuple):
    """All that a process shows. `pools_there` and `sections_there` may be more than are shown."""

    process: int
    instant: int
    pools: list[PoolFigures]
    pools_there: int
    sections: list[SectionFigures]
    sections_there: int


def read_head(data: bytes) -> Head:
    """The head of a page."""
    if len(data) < HEAD.size:
        raise PageError("a page that is too short")
    head = Head(*HEAD.unpack_from(data))
    if head.magic != MAGIC:
        raise PageError("no page of rtpool")
    if head.version != VERSION:
        raise PageError(f"version {head.version} of the page; this reads version {VERSION}")
    return head


def parse(data: bytes) -> Page:
    """Read a page as a whole."""
    head = read_head(data)
    most = _POOL.size + _WORD * head.stats_fields, _WORD * head.section_fields
    fits = most[0] <= head.pool_bytes and most[1] <= head.section_bytes
    fits = fits and len(FIELDS) <= head.stats_fields and head.section_fields >= _SECTION_FIELDS
    length = HEAD.size + MOST_POOLS * head.pool_bytes + MOST_SECTIONS * head.section_bytes
    if not fits or head.bytes != length or length > MOST_BYTES or len(data) < length:
        raise PageError("a page whose parts do not fit")
    pools = []
    for number in range(min(head.pools, MOST_POOLS)):
        at = HEAD.size + number * head.pool_bytes
        name, identity, limit, flags = _POOL.unpack_from(data, at)
        figures = struct.unpack_from(f"<{len(FIELDS)}Q", data, at + _POOL.size)
        pools.append(
            PoolFigures(
                _text(name), identity, limit, bool(flags & FROZEN), bool(flags & SHARED), bool(flags & DEBUG),
                dict(zip(FIELDS, figures, strict=True)),
            )
        )  # fmt: skip
    begin = HEAD.size + MOST_POOLS * head.pool_bytes
    sections = [
        SectionFigures(*struct.unpack_from(f"<{_SECTION_FIELDS}Q", data, begin + number * head.section_bytes))
        for number in range(min(head.sections, MOST_SECTIONS))
    ]
    return Page(head.process, head.instant, pools, head.pools, sections, head.sections)


def _text(name: bytes) -> str:
    """A name as text that steers no terminal."""
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
