"""Iterations, ticks and spans: what the marks of a trace say. They are read by themselves, before all other events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .events import ITERATION_BEGIN, NEVER, SPAN_BEGIN, TICK_BEGIN, Events
from .file import TraceFile

I64 = NDArray[np.int64]

_NONE = -1


class Stretches(NamedTuple):
    """Stretches of time, in the order in which they begin. `end` is `NEVER` where the trace has none.

    `number` is the iteration's or tick's as it was marked, or the span's name; `thread` who marked it.
    """

    begin: I64
    end: I64
    number: I64
    thread: I64

    def __len__(self) -> int:
        return self.begin.size


NO_STRETCHES = Stretches(*(np.empty(0, np.int64) for _ in range(4)))


class Marks:
    """What the marks of a trace say.

    Attributes
    ----------
    iterations : Stretches
        What was marked as iterations, or else the ticks of real-time sections; of the first thread that did.
    is_ticks : bool
        Whether these are ticks.
    spans : Stretches
        Named parts of the program, of all threads.
    """

    def __init__(self, file: TraceFile) -> None:
        marks = file.decode_marks([chunk for chunk in file.chunks if chunk.marks])
        which = (marks.kind >> 2 & 15).astype(np.int64)
        self.iterations = NO_STRETCHES
        self.is_ticks = False
        for kind in (ITERATION_BEGIN, TICK_BEGIN):
            begun = np.flatnonzero(which == kind)
            if begun.size:
                self.is_ticks = kind == TICK_BEGIN
                first = marks.thread[begun[0]]
                self.iterations = _iterations(marks.take((which >> 1 == kind >> 1) & (marks.thread == first)), kind)
                break
        self.spans = _spans(marks.take(which >> 1 == SPAN_BEGIN >> 1))

    def iteration(self, times: I64) -> NDArray[np.int32]:
        """In which iteration moments are, counted from 0; -1: in none. The moments are in order."""
        begin = self.iterations.begin
        if not begin.size or not times.size:
            return np.full(times.size, _NONE, np.int32)
        first, last = (int(np.searchsorted(begin, time, "right")) - 1 for time in (times[0], times[-1]))
        cuts = np.searchsorted(times, begin[first + 1 : last + 1])
        lengths = np.diff(np.concatenate([[0], cuts, [times.size]]))
        at = np.repeat(np.arange(first, last + 1, dtype=np.int32), lengths)
        ends = np.repeat(self.iterations.end[np.maximum(np.arange(first, last + 1), 0)], lengths)
        at[times > ends] = _NONE
        return at


def _iterations(marks: Events, kind: int) -> Stretches:
    """Each begin with the next end, in the order in which the thread marked them: times may be equal."""
    is_begin = marks.kind >> 2 & 15 == kind
    begins, ends = np.flatnonzero(is_begin), np.flatnonzero(~is_begin)
    end = np.append(marks.time[ends], NEVER)[np.searchsorted(ends, begins)]
    return Stretches(marks.time[begins], end, marks.size[begins], marks.thread[begins].astype(np.int64))


def _spans(marks: Events) -> Stretches:
    """Begins with their ends: those of one thread and name nest, so each begin ends with the next end of its depth."""
    if not len(marks):
        return NO_STRETCHES
    order = np.lexsort((np.arange(len(marks)), marks.size, marks.thread))
    marks = marks.take(order)
    begins = (marks.kind >> 2 & 1) == 0
    step = np.where(begins, 1, -1)
    depth = np.cumsum(step) + ~begins  # an end has the depth of its begin
    order = np.lexsort((np.arange(len(marks)), depth, marks.size, marks.thread))
    marks, begins, depth = marks.take(order), begins[order], depth[order]
    at = np.flatnonzero(begins)
    after = np.minimum(at + 1, len(marks) - 1)
    ended = (after > at) & ~begins[after] & (depth[after] == depth[at])
    ended &= (marks.size[after] == marks.size[at]) & (marks.thread[after] == marks.thread[at])
    end = np.where(ended, marks.time[after], NEVER)
    found = Stretches(marks.time[at], end, marks.size[at], marks.thread[at].astype(np.int64))
    in_time = np.argsort(found.begin, kind="stable")
    return Stretches(*(column[in_time] for column in found))
