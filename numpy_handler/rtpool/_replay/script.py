"""The events of a trace as columns that the core replays: a row an operation, blocks as numbers of slots."""

from __future__ import annotations

import heapq
import os
from typing import Any, NamedTuple

import numpy as np

from .._trace.events import (
    ALLOCATE,
    FAILED,
    FREE,
    I64,
    MARK,
    RESIZE,
    U8,
    U32,
    U64,
    ZEROED,
    Events,
    TraceError,
)
from .._trace.file import TraceFile

# As replay::Operation in src/replay/replayer.hpp.
ALLOCATION, ZEROED_ALLOCATION, RELEASE, RESIZE_FROM, RESIZE_TO = range(5)
OPERATION_BITS = 3
MOST_THREADS = 1024
COLUMNS = ("what", "slot", "turn", "order", "begins")


class Script(NamedTuple):
    """What to do, and what is known of it beforehand.

    Attributes
    ----------
    what, slot, turn, order, begins : ndarray
        The columns, as src/replay/replayer.hpp has them; each thread's rows behind each other.
    slots : int
        Blocks' places: distinct addresses of the recording.
    threads, recorded_threads : int
        Threads that replay, and those that were recorded: one that begins after another's end goes on in its thread.
    allocations, peak_bytes : int
        What is asked for, in all and most at once.
    unmatched : int
        Frees of blocks whose allocation is not in the trace (left out), and blocks whose free is not (freed before
        their address is used again).
    """

    what: U64
    slot: U32
    turn: U32
    order: U32
    begins: U64
    slots: int
    recorded_threads: int
    allocations: int
    peak_bytes: int
    unmatched: int

    @property
    def threads(self) -> int:
        return int(self.begins.size) - 1

    @property
    def operations(self) -> int:
        return int(self.what.size)

    def save(self, folder: str) -> None:
        """Write the columns, for `load`."""
        for name in COLUMNS:
            np.save(os.path.join(folder, name), getattr(self, name))


def load(folder: str) -> list[Any]:
    """The columns that `Script.save` wrote, mapped, in the order of `COLUMNS`."""
    return [np.load(os.path.join(folder, name + ".npy"), mmap_mode="r") for name in COLUMNS]


def script_of(file: TraceFile) -> Script:
    """Make the script of a trace.

    Raises
    ------
    TraceError
        If the trace is damaged, or holds no events: mode "totals".
    """
    if file.meta.get("mode") == "totals":
        raise TraceError('a trace of mode "totals" holds sums; replaying needs events')
    writer = _Writer()
    for window in file.windows():
        writer.add(window)
    return writer.finish()


class _Rows(NamedTuple):
    """Operations in recorded order."""

    operation: U8
    slot: U32
    size: I64
    thread: U32

    def take(self, index: Any) -> _Rows:
        return _Rows(*(column[index] for column in self))


class _Writer:
    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)  # addresses, sorted
        self._numbers = np.empty(0, np.uint32)  # their slots
        self._live = np.empty(0, np.bool_)
        self._size = np.empty(0, np.int64)
        self._turns = np.empty(0, np.uint32)
        self._owner = np.empty(0, np.uint32)
        self._parts: list[tuple[U64, U32, U32, U32]] = []
        self._alive = 0
        self.peak = 0
        self.allocations = 0
        self.unmatched = 0

    def add(self, events: Events) -> None:
        """Take the next events."""
        kind = events.kind & 3
        failed = (kind == ALLOCATE) & ((events.kind >> 2 & 3) == FAILED)
        events = events.take((kind != MARK) & ~failed)
        if not len(events):
            return
        rows = self._settle(_operations(events, self._slots(events.address)))
        by_slot = np.argsort(rows.slot, kind="stable")
        slot, size = rows.slot[by_slot], rows.size[by_slot]
        made = _makes(rows.operation[by_slot])
        begins = np.flatnonzero(np.r_[True, slot[1:] != slot[:-1]])
        ends = np.r_[begins[1:], slot.size] - 1
        lengths = ends - begins + 1
        rank = np.arange(slot.size) - np.repeat(begins, lengths)
        turn = np.empty(slot.size, np.uint32)
        turn[by_slot] = self._turns[slot] + rank
        # What a free gives back is what the row before it in its slot made.
        before = np.r_[np.int64(0), size[:-1]]
        before[begins] = self._size[slot[begins]]
        change = np.empty(slot.size, np.int64)
        change[by_slot] = np.where(made, size, -before)
        alive = self._alive + np.cumsum(change)
        self._alive = int(alive[-1])
        self.peak = max(self.peak, int(alive.max()))
        self.allocations += int(made.sum())
        last = slot[ends]
        self._turns[last] += lengths.astype(np.uint32)
        self._live[last] = made[ends]
        self._size[last] = np.where(made[ends], size[ends], 0)
        self._owner[last] = rows.thread[by_slot][ends]
        what = rows.size.astype(np.uint64) << np.uint64(OPERATION_BITS) | rows.operation
        self._parts.append((what, rows.slot, turn, rows.thread))

    def finish(self) -> Script:
        if not self._parts:
            raise TraceError("a trace without allocations: there is nothing to replay")
        what, slot, turn, thread = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._parts.clear()
        if what.size >= 1 << 32:
            raise TraceError(f"{what.size:,} events; 4,294,967,295 can be replayed")
        recorded, worker = _fold(thread)
        order = np.arange(what.size, dtype=np.uint32)
        count = int(worker.max()) + 1
        if count > 1:
            by_worker = np.argsort(worker, kind="stable")
            what, slot, turn, order = what[by_worker], slot[by_worker], turn[by_worker], order[by_worker]
        begins = np.r_[0, np.cumsum(np.bincount(worker, minlength=count))].astype(np.uint64)
        return Script(
            what, slot, turn, order, begins, self._live.size, recorded, self.allocations, self.peak, self.unmatched
        )

    def _slots(self, address: U64) -> U32:
        """A number for each address, the same as before for one that was seen before."""
        distinct, inverse = np.unique(address, return_inverse=True)
        at = np.searchsorted(self._known, distinct)
        new = np.ones(distinct.size, np.bool_)
        there = at < self._known.size
        new[there] = self._known[at[there]] != distinct[there]
        count = int(new.sum())
        if count:
            numbers = np.arange(self._live.size, self._live.size + count, dtype=np.uint32)
            self._known = np.insert(self._known, at[new], distinct[new])
            self._numbers = np.insert(self._numbers, at[new], numbers)
            self._live = np.r_[self._live, np.zeros(count, np.bool_)]
            self._size = np.r_[self._size, np.zeros(count, np.int64)]
            self._turns = np.r_[self._turns, np.zeros(count, np.uint32)]
            self._owner = np.r_[self._owner, np.zeros(count, np.uint32)]
        found: U32 = self._numbers[np.searchsorted(self._known, distinct)][inverse.reshape(-1)]
        return found

    def _settle(self, rows: _Rows) -> _Rows:
        """See to it that in each slot an allocation follows a free and a free an allocation, whatever was lost."""
        by_slot = np.argsort(rows.slot, kind="stable")
        slot = rows.slot[by_slot]
        made = _makes(rows.operation[by_slot])
        first = np.r_[True, slot[1:] != slot[:-1]]
        live = np.r_[False, made[:-1]]
        live[first] = self._live[slot[first]]
        owner = np.r_[np.uint32(0), rows.thread[by_slot][:-1]]
        owner[first] = self._owner[slot[first]]
        stray, lost = ~made & ~live, made & live
        self.unmatched += int(stray.sum()) + int(lost.sum())
        if lost.any():
            at = by_slot[lost]
            rows = _Rows(
                np.insert(rows.operation, at, np.uint8(RELEASE)),
                np.insert(rows.slot, at, slot[lost]),
                np.insert(rows.size, at, 0),
                np.insert(rows.thread, at, owner[lost]),
            )
            # What stands at `i` has moved by as many as were put in front of it.
            moved = np.arange(slot.size) + np.searchsorted(np.sort(at), np.arange(slot.size), side="right")
            by_slot = moved[by_slot]
        if stray.any():
            keep = np.ones(rows.slot.size, np.bool_)
            keep[by_slot[stray]] = False
            rows = rows.take(keep)
        return rows


def _makes(operation: U8) -> Any:
    return (operation != RELEASE) & (operation != RESIZE_FROM)


def _operations(events: Events, slot: U32) -> _Rows:
    """Events as operations. A realloc is told as a free and an allocation, in either order; here the free is first."""
    free = (events.kind & 3) == FREE
    zeroed = ((events.kind & 3) == ALLOCATE) & ((events.kind & ZEROED) != 0)
    operation = np.where(free, RELEASE, np.where(zeroed, ZEROED_ALLOCATION, ALLOCATION)).astype(np.uint8)
    size = np.where(free, 0, events.size)
    resize = ((events.kind & RESIZE) != 0) & ((events.kind & 3) <= FREE)
    if not resize.any():
        return _Rows(operation, slot, size, events.thread)
    # Pairs are neighbours among their thread's events.
    by_thread = np.argsort(events.thread, kind="stable")
    thread = events.thread[by_thread]
    part = resize[by_thread]
    begins = part & np.r_[True, ~part[:-1] | (thread[1:] != thread[:-1])]
    run = np.maximum.accumulate(np.where(begins, np.arange(part.size), 0))
    first = np.flatnonzero(
        part[:-1] & part[1:] & (thread[:-1] == thread[1:]) & ((np.arange(part.size) - run)[:-1] % 2 == 0)
    )
    one, other = by_thread[first], by_thread[first + 1]
    pair = free[one] != free[other]
    one, other = one[pair], other[pair]
    backwards = ~free[one]
    slot = slot.copy()
    left, right = one[backwards], other[backwards]
    slot[left], slot[right] = slot[right], slot[left]
    size[right], size[left] = size[left], 0
    operation[one], operation[other] = RESIZE_FROM, RESIZE_TO
    return _Rows(operation, slot, size, events.thread)


def _fold(thread: U32) -> tuple[int, Any]:
    """Which of the threads that replay does each row: one that begins after another's last row takes its place."""
    numbers, first, inverse = np.unique(thread, return_index=True, return_inverse=True)
    last = np.empty(numbers.size, np.int64)
    last[inverse.reshape(-1)] = np.arange(thread.size)
    worker = np.empty(numbers.size, np.int64)
    free: list[tuple[int, int]] = []  # last row, worker
    count = 0
    for index in np.argsort(first, kind="stable"):
        if free and free[0][0] < first[index]:
            _, mine = heapq.heappop(free)
        else:
            mine, count = count, count + 1
        worker[index] = mine
        heapq.heappush(free, (int(last[index]), mine))
    if count > MOST_THREADS:
        raise TraceError(f"{count:,} threads at once; {MOST_THREADS:,} can be replayed")
    return numbers.size, worker[inverse.reshape(-1)]
