"""The events of a trace, decoded from chunks into arrays; many chunks at once, as they are small.

Pure NumPy. Nothing in a chunk is trusted: whatever does not fit raises `TraceError`.
docs/reference/trace-format.md describes the format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZE_SLOTS = 256
NEVER = np.iinfo(np.int64).max

ALLOCATE, FREE, MARK, ALIVE = 0, 1, 2, 3
HIT, MISS, FALLBACK, FAILED = 0, 1, 2, 3
ZEROED, RESIZE, SAME_SIZE, REMOTE = 16, 32, 64, 4
(ITERATION_BEGIN, ITERATION_END, SPAN_BEGIN, SPAN_END, TICK_BEGIN, TICK_END, FAULTS) = range(7)

HEAD = struct.Struct("<IIQQQ4IQ")  # of a chunk
MOST_AT_ONCE = 256  # chunks: a chunk's number and the slot of a size fit sixteen bits

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


class TraceError(ValueError):
    """A file is no trace, or a damaged one; the text says where it goes wrong."""


class Chunk(NamedTuple):
    """Where a chunk's payload is, and its head."""

    offset: int
    size: int
    crc: int
    thread: int
    events: int
    first: int
    last: int
    lost: int
    columns: tuple[int, int, int, int]
    marks: int


class Events(NamedTuple):
    """Events in the order of time, one row each. `place`, `address` and `size` are 0 where an event has none.

    A mark's number is its `size`. Addresses count 16 bytes.
    """

    time: I64
    kind: U8
    place: U32
    address: U64
    size: I64
    thread: U32

    def __len__(self) -> int:
        return self.time.size

    def take(self, index: Any) -> Events:
        """Some of them."""
        return Events(*(column[index] for column in self))


EMPTY = Events(
    np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint64),
    np.empty(0, np.int64), np.empty(0, np.uint32),
)  # fmt: skip


def join(parts: list[Events]) -> Events:
    """All of them behind each other."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if parts else EMPTY


def split(events: Events, end: int) -> tuple[Events, Events]:
    """In the order of time: what comes before `end`, and the rest. Equal times: frees first, else as they were."""
    key = events.time * 2
    key += (events.kind & 3) != FREE
    if (key[1:] < key[:-1]).any():
        events = events.take(np.argsort(key, kind="stable"))  # quick, as each thread's are in order
    cut = int(np.searchsorted(events.time, end))
    return events.take(slice(0, cut)), events.take(slice(cut, None))


def decode(payloads: Sequence[bytes], chunks: Sequence[Chunk]) -> Events:
    """The events of chunks, one chunk behind the other."""
    parts = _Parts(payloads, chunks)
    kinds, kind = parts.kinds, parts.kinds & 3
    when = parts.times(kind)
    is_allocation = kind == ALLOCATE

    place = np.zeros(kinds.size, np.uint32)
    has_place = kind <= FREE
    numbers = parts.numbers(2, has_place)
    if numbers.size and int(numbers.max()) >= 1 << 22:
        raise TraceError("a place whose number is too high")
    place[has_place] = numbers

    address = np.zeros(kinds.size, np.uint64)
    failed = is_allocation & ((kinds >> 2 & 3) == FAILED)
    has_address = (kind != MARK) & ~failed
    steps = parts.numbers(3, has_address)
    signed = (steps >> np.uint64(1)) ^ (np.uint64(0) - (steps & np.uint64(1)))
    address[has_address] = parts.summed(signed, has_address)
    if address.size and int(address.max()) >= 1 << 60:
        raise TraceError("an address that no process has")

    size = np.zeros(kinds.size, np.uint64)
    has_size, same = _has_size(kinds, kind)
    size[has_size] = parts.numbers(4, has_size)
    if same.any():
        of = parts.of_event[is_allocation]
        size[is_allocation] = _fill(size[is_allocation], same[is_allocation], place[is_allocation], of)
    if size.size and int(size.max()) >= 1 << 62:
        raise TraceError("a size that no memory has")
    return Events(when, kinds, place, address, size.astype(np.int64), parts.threads[parts.of_event])


def decode_marks(payloads: Sequence[bytes], chunks: Sequence[Chunk]) -> Events:
    """The marks of chunks alone, for a third of the time."""
    parts = _Parts(payloads, chunks)
    kinds, kind = parts.kinds, parts.kinds & 3
    when = parts.times(kind)
    has_size, _ = _has_size(kinds, kind)
    at = np.flatnonzero(kind == MARK)
    size = parts.numbers(4, has_size)[(kind == MARK)[has_size]]
    if size.size and int(size.max()) >= 1 << 62:
        raise TraceError("a mark whose number is too high")
    none = np.zeros(at.size, np.uint64)
    threads = parts.threads[parts.of_event[at]]
    return Events(when[at], kinds[at], none.astype(np.uint32), none, size.astype(np.int64), threads)


class _Parts:
    """The columns of chunks behind each other, and which part of them is whose."""

    def __init__(self, payloads: Sequence[bytes], chunks: Sequence[Chunk]) -> None:
        views = [memoryview(payload) for payload in payloads]
        lengths = np.array([(chunk.events, *chunk.columns) for chunk in chunks], np.int64).reshape(-1, 5)
        bounds = HEAD.size + np.cumsum(np.c_[np.zeros(len(chunks), np.int64), lengths], axis=1)
        self._columns = [
            np.frombuffer(b"".join([view[a:b] for view, (a, b) in zip(views, cuts, strict=True)]), np.uint8)
            for cuts in (bounds[:, column : column + 2].tolist() for column in range(5))
        ]
        self._ends = np.cumsum(lengths, axis=0)  # of each part in each column
        self._counts = lengths[:, 0]
        self._chunks = chunks
        self.kinds: U8 = self._columns[0]
        self.of_event: NDArray[np.uint16] = np.repeat(np.arange(len(chunks), dtype=np.uint16), self._counts)
        self.threads: U32 = np.array([chunk.thread for chunk in chunks], np.uint32)

    def _count(self, chosen: Bools) -> I64:
        """How many of the chosen events each part has."""
        total = np.concatenate([[0], np.cumsum(chosen)])
        counts: I64 = np.diff(total[np.concatenate([[0], self._ends[:, 0]])])
        return counts

    def numbers(self, column: int, chosen: Bools | None = None) -> U64:
        """The varints of a column: one for each chosen event of each part, and no more."""
        counts = self._counts if chosen is None else self._count(chosen)
        return varints(self._columns[column], counts, self._ends[:, column])

    def summed(self, steps: U64, chosen: Bools) -> U64:
        """Running sums, modulo 2**64, from 0 in each part."""
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(steps, dtype=np.uint64)])
        counts = self._count(chosen)
        before = total[np.cumsum(counts) - counts]
        summed: U64 = total[1:] - np.repeat(before, counts)
        return summed

    def times(self, kind: NDArray[np.integer]) -> I64:
        """The events' times, held against the chunks' heads."""
        steps = self.numbers(1).astype(np.int64)
        if (self._count(kind == MARK) != [chunk.marks for chunk in self._chunks]).any():
            raise TraceError("not as many marks as there should be")
        if steps.size and (int(steps.min()) < 0 or int(steps.max()) >= 1 << 40):
            raise TraceError("times that do not add up")
        total = np.concatenate([[0], np.cumsum(steps)])
        bounds = np.concatenate([[0], self._ends[:, 0]])
        first = np.array([chunk.first for chunk in self._chunks], np.int64)
        length = np.array([chunk.last - chunk.first if chunk.events else 0 for chunk in self._chunks], np.int64)
        if (np.diff(total[bounds]) != length).any():
            raise TraceError("times that do not add up")
        when: I64 = total[1:] + np.repeat(first - total[bounds[:-1]], self._counts)
        return when


def _has_size(kinds: U8, kind: NDArray[np.integer]) -> tuple[Bools, Bools]:
    """Which events have a size (or a mark's number) of their own, and which have that of an event before."""
    same = (kind == ALLOCATE) & ((kinds & SAME_SIZE) != 0)
    return (kind != FREE) & ~same, same


def varints(data: U8, counts: I64, bounds: I64) -> U64:
    """Decode the varints that fill `data`, whose parts end at `bounds` and hold `counts` each."""
    ends = np.flatnonzero(data < 0x80)
    total = np.cumsum(counts)
    if ends.size != (int(total[-1]) if total.size else 0) or (np.searchsorted(ends, bounds) != total).any():
        raise TraceError("a column that does not hold as many numbers as it should")
    filled = bounds[counts > 0]
    if (data[filled - 1] >= 0x80).any() or data.size != (int(ends[-1]) + 1 if ends.size else 0):
        raise TraceError("a column whose last number is cut off")
    if ends.size == data.size:
        return data.astype(np.uint64)
    starts = np.empty_like(ends)
    starts[:1] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise TraceError("a number of more than ten bytes")
    values = (data[starts] & 0x7F).astype(np.uint64)
    more = np.flatnonzero(lengths > 1)
    for k in range(1, longest):
        if k > 1:
            more = more[lengths[more] > k]
        values[more] |= (data[starts[more] + k] & 0x7F).astype(np.uint64) << np.uint64(7 * k)
    return values


def _fill(size: U64, same: Bools, place: U32, part: NDArray[np.uint16]) -> U64:
    """Sizes that stand for the last one in the slot of their place, in the same part."""
    slot = (part % np.uint16(MOST_AT_ONCE)) * np.uint16(SIZE_SLOTS) + (place % SIZE_SLOTS).astype(np.uint16)
    order = np.argsort(slot, kind="stable")
    given = np.where(same[order], -1, np.arange(order.size))
    source = np.maximum.accumulate(given)
    sorted_slot = slot[order]
    if (source < 0).any() or (sorted_slot[source] != sorted_slot).any():
        raise TraceError("a size that stands for one that is not there")
    filled = np.empty_like(size)
    filled[order] = size[order][source]
    return filled
