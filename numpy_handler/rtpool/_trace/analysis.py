"""One pass over a trace's events: sums by place, what was alive at the peak, iterations, misses, sizes.

Events come in windows of about a million, so that memory does not grow with the trace. A window is sorted by address
once: neighbours in that order are the lives of one block, one after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .file import (
    ALIVE,
    ALLOCATE,
    FAILED,
    FALLBACK,
    FREE,
    HIT,
    ITERATION_BEGIN,
    ITERATION_END,
    MARK,
    REMOTE,
    TICK_BEGIN,
    TICK_END,
    ZEROED,
    Events,
    TraceFile,
)

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCALAR = 16  # NumPy makes an array of a Python number that it computes with, at most this large
_NONE = -1
_MOST_TIMELINE = 4096
_COUNTED = (
    "calls", "bytes", "frees", "freed_bytes", "lifetime", "longest", "temporaries", "temporary_bytes", "misses",
    "fallbacks", "failures", "zeroed", "remote_frees", "warm", "scalars", "most_alive", "least_size", "largest_size",
)  # fmt: skip


class SizeUse(NamedTuple):
    """How blocks of one granted size were used."""

    granted: int
    requested: int
    most_alive: int
    calls: int
    zeroed: int
    misses_first: int
    misses_more_alive: int
    misses_given_back: int
    misses_refused: int


def granted_bytes(sizes: I64) -> I64:
    """What a pool grants for requests: multiples of 64 up to 4032 bytes, of 4096 above."""
    step = np.where(sizes <= 4032, 64, 4096)
    granted: I64 = -(-np.maximum(sizes, 1) // step) * step
    return granted


class Analysis:
    """What one pass over the events finds. Arrays by place have one entry a number of a place (or stack).

    Attributes
    ----------
    sums : dict of str to array
        By place: see `_COUNTED`. Lifetimes in the recorder's units.
    unit : {"iteration", "line"}
        What a temporary is born and gone within.
    iterations : int
    peak_bytes, peak_time : int
        The most bytes alive at once, as asked for, and when.
    peak_by_place : array
        What was alive then.
    timeline : list of (time, bytes)
        The most bytes alive, over time, in at most some thousand steps.
    working_set : array
        Bytes of distinct memory handed out in each iteration.
    handed_out : dict of str to int
        Bytes of allocations whose memory was last used so long ago that it may lie in level 2, in level 3, in neither,
        or that were never seen before.
    sizes : list of SizeUse
    unknown_frees : int
        Of blocks that the trace does not know.
    first_time, last_time : int
    """

    def __init__(self, file: TraceFile, window: int = 1 << 20) -> None:
        self._file = file
        places = 1 + max([0, *file.places, *file.stacks, *(total.place for total in file.totals)])
        self.places = min(places, 1 << 22)
        self.sums: dict[str, I64] = {name: np.zeros(self.places, np.int64) for name in _COUNTED}
        self.sums["least_size"][:] = np.iinfo(np.int64).max
        self.line_of = _lines(file, self.places)
        self.iterations = 0
        self.unit = "line"
        self.peak_bytes = 0
        self.peak_time = 0
        self.peak_by_place = np.zeros(self.places, np.int64)
        self.timeline: list[tuple[int, int]] = []
        self.handed_out = {"level2": 0, "level3": 0, "memory": 0, "new": 0}
        self.unknown_frees = 0
        self.first_time = self.last_time = 0
        self.live_bytes = 0
        self.alive_before = 0
        self._begins: I64 = np.empty(0, np.int64)
        self._ends: I64 = np.empty(0, np.int64)
        self._working: list[I64] = []
        self._alive_now = np.zeros(self.places, np.int64)
        self._sizes: dict[int, list[int]] = {}
        self._fresh_bytes = 0  # bytes handed out so far
        caches = file.meta.get("caches")
        caches = caches if isinstance(caches, dict) else {}
        self.level2 = _number(caches.get("level2"), 1 << 20)
        self.level3 = max(_number(caches.get("level3"), 32 << 20), self.level2)
        # What is known of addresses from earlier windows: one row each, of live blocks and of those freed lately.
        self._known = _Known.empty()
        self._find_iterations()
        for events in file.windows(window):
            self._add(events)
        for total in file.totals:
            self._add_total(total.place, total._asdict())
        self.working_set: I64 = np.concatenate(self._working) if self._working else np.empty(0, np.int64)
        self._finish()

    # --- iterations ---

    def _find_iterations(self) -> None:
        """Marks come first: whether a block's free is in the same iteration must be known when it is met."""
        begins: dict[int, list[I64]] = {ITERATION_BEGIN: [], TICK_BEGIN: []}
        ends: dict[int, list[I64]] = {ITERATION_END: [], TICK_END: []}
        marker: dict[int, int] = {}
        for chunk in self._file.chunks:
            if not chunk.marks:
                continue
            events = self._file.decode(chunk)
            marks = np.where((events.kind & 3) == MARK, events.kind >> 2 & 15, 255)
            for kind in begins:
                times = events.time[marks == kind]
                # One thread counts the iterations: the first that does.
                if times.size and marker.setdefault(kind, chunk.thread) == chunk.thread:
                    begins[kind].append(times)
            for kind in ends:
                if marker.get(kind - 1) == chunk.thread:
                    ends[kind].append(events.time[marks == kind])
        for kind in (ITERATION_BEGIN, TICK_BEGIN):
            if begins[kind]:
                self._begins = np.sort(np.concatenate(begins[kind]))
                found = np.sort(np.concatenate(ends[kind + 1])) if ends[kind + 1] else np.empty(0, np.int64)
                at = np.searchsorted(found, self._begins)
                far = np.append(found, np.iinfo(np.int64).max)
                self._ends = far[np.minimum(at, found.size)]
                self.iterations, self.unit = int(self._begins.size), "iteration"
                return

    def _iteration(self, times: I64) -> I64:
        """In which iteration a moment is; -1: in none."""
        if not self.iterations:
            return np.full(times.size, _NONE)
        at = np.searchsorted(self._begins, times, "right") - 1
        inside = (at >= 0) & (times <= self._ends[np.maximum(at, 0)])
        return np.where(inside, at, _NONE)

    # --- events ---

    def _add(self, events: Events) -> None:
        if not self.first_time:
            self.first_time = int(events.time[0])
        self.last_time = int(events.time[-1])
        kind = (events.kind & 3).astype(np.uint8)
        outcome = np.where(kind == ALLOCATE, events.kind >> 2 & 3, 255).astype(np.uint8)
        events, kind, outcome = self._count_failures(events, kind, outcome)
        begin = (kind == ALLOCATE) | (kind == ALIVE)
        rows = begin | (kind == FREE)
        events, begin, outcome = events.take(rows), begin[rows], outcome[rows]
        place = np.minimum(events.place, self.places - 1).astype(np.int64)
        alive_before = begin & (outcome == 255)
        self.alive_before += int(alive_before.sum())
        made = begin & ~alive_before
        handed = self._fresh_bytes + np.cumsum(np.where(made, events.size, 0))
        self._fresh_bytes = int(handed[-1]) if handed.size else self._fresh_bytes

        # Known rows in front, in the order of time as they came before all of this window.
        known = self._known
        offset = known.address.size
        address = np.concatenate([known.address, events.address])
        order = _by_address(address)
        previous = np.full(address.size, _NONE)
        same = address[order[1:]] == address[order[:-1]]
        previous[order[1:][same]] = order[:-1][same]
        last = np.ones(address.size, np.bool_)
        last[order[:-1][same]] = False

        # Every row as one step of a block's history; a known row stands for its last step.
        birth = np.concatenate([known.birth, np.where(begin, events.time, 0)])
        size = np.concatenate([known.size, np.where(begin, events.size, 0)])
        by = np.concatenate([known.place, np.where(made, place, 0)])
        is_alive = np.concatenate([known.alive, begin])
        used = np.concatenate([known.used, np.where(begin, handed, 0)])

        here = np.arange(offset, address.size)
        before = previous[here]
        there = before >= 0
        was_alive = there & is_alive[np.maximum(before, 0)]
        # A live block that is made again: its free was lost, or it was made just as recording began.
        ended = was_alive & (~begin | alive_before | made)
        freed = ended & ~begin
        self.unknown_frees += int((~begin & ~was_alive).sum())
        origin = before[ended]
        death = np.flatnonzero(ended)
        # What a free ends is carried over to its row: the block's size and place are asked for when it is used again.
        over = here[~begin & there]
        size[over], birth[over] = size[before[~begin & there]], birth[before[~begin & there]]
        used[here[~begin]] = handed[~begin]
        self._count_ends(events, place, origin, death, birth, size, by, freed)
        self._count_begins(events, place, made, outcome, before, there, used, size, birth, offset, handed)
        self._follow_live(events, begin, ended, before, size, by, offset, previous)
        self._count_alive(place, made & (events.size > SCALAR), ended & (size[np.maximum(before, 0)] > SCALAR),
                          by[np.maximum(before, 0)])  # fmt: skip
        self._count_sizes(events, made, alive_before, outcome, ended, before, size)

        keep = last & (is_alive | (self._fresh_bytes - used <= 2 * self.level3))
        self._known = _Known(address[keep], birth[keep], size[keep], by[keep], is_alive[keep], used[keep])

    def _count_failures(
        self, events: Events, kind: NDArray[np.uint8], outcome: NDArray[np.uint8]
    ) -> tuple[Events, NDArray[np.uint8], NDArray[np.uint8]]:
        failed = outcome == FAILED
        if failed.any():
            place = np.minimum(events.place[failed], self.places - 1)
            self._count("failures", place)
            self._count("misses", place)
            for granted in granted_bytes(events.size[failed]).tolist():
                self._size(granted)[8] += 1
            rest = ~failed
            return events.take(rest), kind[rest], outcome[rest]
        return events, kind, outcome

    def _count_ends(
        self, events: Events, place: I64, origin: I64, death: I64, birth: I64, size: I64, by: I64, freed: Bools
    ) -> None:
        maker = by[origin]
        sizes, lives = size[origin], events.time[death] - birth[origin]
        self._count("frees", maker)
        self._count("freed_bytes", maker, sizes)
        known = maker > 0
        self._count("lifetime", maker[known], lives[known])
        np.maximum.at(self.sums["longest"], maker[known], lives[known])
        remote = (events.kind[death] & REMOTE != 0) & freed[death]
        self._count("remote_frees", maker[remote])
        if self.unit == "iteration":
            at = self._iteration(birth[origin])
            gone = known & (at >= 0) & (at == self._iteration(events.time[death]))
        else:
            gone = known & (self.line_of[maker] == self.line_of[place[death]]) & (place[death] > 0)
        self._count("temporaries", maker[gone])
        self._count("temporary_bytes", maker[gone], sizes[gone])

    def _count_begins(
        self, events: Events, place: I64, made: Bools, outcome: NDArray[np.uint8], before: I64, there: Bools, used: I64,
        size: I64, birth: I64, offset: int, handed: I64,
    ) -> None:  # fmt: skip
        at, sizes = place[made], events.size[made]
        self._count("calls", at)
        self._count("bytes", at, sizes)
        self._count("misses", place[made & (outcome != HIT)])
        self._count("fallbacks", place[made & (outcome == FALLBACK)])
        self._count("zeroed", place[made & (events.kind & ZEROED != 0)])
        self._count("scalars", at[sizes <= SCALAR])
        np.minimum.at(self.sums["least_size"], at[sizes > SCALAR], sizes[sizes > SCALAR])
        np.maximum.at(self.sums["largest_size"], at, sizes)
        # How much was handed out since the memory was last used says where it may still be.
        again = made & there
        distance = np.where(again, handed - events.size - used[np.maximum(before, 0)], 0)
        warm = again & (distance + events.size <= self.level2)
        middle = again & ~warm & (distance + events.size <= self.level3)
        far = again & ~warm & ~middle
        for name, chosen in (("level2", warm), ("level3", middle), ("memory", far), ("new", made & ~there)):
            self.handed_out[name] += int(events.size[chosen].sum())
        self._count("warm", place[warm | middle])
        if not self.iterations:
            return
        # Distinct memory of an iteration: what was not handed out in it before.
        now = self._iteration(events.time)
        earlier = np.where(there, self._iteration(birth[np.maximum(before, 0)]), _NONE)
        # The row before may be the free of the block: its birth is the row's before that.
        fresh = made & (now >= 0) & (earlier != now)
        if fresh.any():
            first = int(now[fresh].min())
            counts = np.bincount(now[fresh] - first, weights=granted_bytes(events.size[fresh])).astype(np.int64)
            self._add_working(first, counts)

    def _add_working(self, first: int, counts: I64) -> None:
        if not self._working:
            self._working = [np.zeros(self.iterations, np.int64)]
        self._working[0][first : first + counts.size] += counts

    def _follow_live(
        self, events: Events, begin: Bools, ended: Bools, before: I64, size: I64, by: I64, offset: int, previous: I64
    ) -> None:
        change = np.where(begin, events.size, 0) - np.where(ended, size[np.maximum(before, 0)], 0)
        live = self.live_bytes + np.cumsum(change)
        if not live.size:
            return
        self.live_bytes = int(live[-1])
        at = int(np.argmax(live))
        step = max(1, live.size // 256)
        starts = np.arange(0, live.size, step)
        self.timeline += zip(events.time[starts].tolist(), np.maximum.reduceat(live, starts).tolist(), strict=True)
        if len(self.timeline) > 2 * _MOST_TIMELINE:
            self.timeline = [max(pair, key=lambda entry: entry[1]) for pair in zip(
                self.timeline[::2], self.timeline[1::2], strict=False)]  # fmt: skip
        if int(live[at]) <= self.peak_bytes:
            return
        self.peak_bytes, self.peak_time = int(live[at]), int(events.time[at])
        # Alive then: what began up to there and did not end up to there.
        rows = np.zeros(offset + len(events), np.bool_)
        rows[:offset] = self._known.alive
        rows[offset : offset + at + 1] = begin[: at + 1]
        gone = before[: at + 1][ended[: at + 1]]
        rows[gone] = False
        self.peak_by_place = np.bincount(by[rows], weights=size[rows], minlength=self.places).astype(np.int64)

    def _count_alive(self, place: I64, made: Bools, ended: Bools, maker: I64) -> None:
        """The most blocks of each place that were alive at once. In a row an end comes before a begin."""
        ends, begins = np.flatnonzero(ended), np.flatnonzero(made)
        at = np.concatenate([maker[ends], place[begins]])
        step = np.concatenate([np.full(ends.size, -1), np.ones(begins.size, np.int64)])
        if not at.size:
            return
        order = _in_turn(ends, begins)
        order = order[np.argsort(_short(at[order]), kind="stable")]
        at, step = at[order], step[order]
        starts = np.flatnonzero(np.r_[True, at[1:] != at[:-1]])
        total = np.cumsum(step)
        groups = at[starts]
        most = np.maximum.reduceat(total, starts) - (total[starts] - step[starts]) + self._alive_now[groups]
        self.sums["most_alive"][groups] = np.maximum(self.sums["most_alive"][groups], most)
        self._alive_now[groups] += np.add.reduceat(step, starts)

    def _count_sizes(
        self, events: Events, made: Bools, alive_before: Bools, outcome: NDArray[np.uint8], ended: Bools, before: I64,
        size: I64,
    ) -> None:  # fmt: skip
        """Per granted size how many are alive over time; and why a miss was one."""
        # An end comes before the begin of the same row, which takes its place.
        ends, begins = np.flatnonzero(ended), np.flatnonzero(made | alive_before)
        row = np.concatenate([ends, begins])
        step = np.concatenate([np.full(ends.size, -1), np.ones(begins.size, np.int64)])
        bytes_of = np.concatenate([size[before[ended]], events.size[begins]])
        if not row.size:
            return
        order = _in_turn(ends, begins)
        granted = granted_bytes(bytes_of[order])
        order = order[np.argsort(_short(np.where(granted <= 4032, granted, (granted >> 12) + 4096)), kind="stable")]
        row, step, bytes_of = row[order], step[order], bytes_of[order]
        granted = granted_bytes(bytes_of)
        starts = np.flatnonzero(np.r_[True, granted[1:] != granted[:-1]])
        bounds = np.r_[starts, row.size]
        missed = (outcome != HIT) & made
        for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            entry = self._size(int(granted[first]))
            part = slice(first, end)
            alive = entry[0] + np.cumsum(step[part])
            most = np.maximum.accumulate(np.r_[entry[1], alive])
            begun = step[part] > 0
            rows = row[part]
            was_made = begun & made[rows]
            if was_made.any():
                entry[2] += int(was_made.sum())
                entry[3] = max(entry[3], int(bytes_of[part][was_made].max()))
                entry[4] += int((events.kind[rows[was_made]] & ZEROED != 0).sum())
            miss = was_made & missed[rows]
            if miss.any():
                refused = miss & (outcome[rows] == FALLBACK)
                more = miss & ~refused & (alive > most[:-1])
                first_of_all = more & (most[:-1] == 0)
                entry[5] += int(first_of_all.sum())
                entry[6] += int((more & ~first_of_all).sum())
                entry[7] += int((miss & ~refused & ~more).sum())
                entry[8] += int(refused.sum())
            entry[0], entry[1] = int(alive[-1]), int(most[-1])

    def _size(self, granted: int) -> list[int]:
        # alive, most alive, calls, largest request, zeroed, and misses: first, more alive, given back, refused
        return self._sizes.setdefault(granted, [0] * 9)

    def _count(self, name: str, place: NDArray[np.integer], weights: I64 | None = None) -> None:
        if place.size:
            # Whole numbers stay whole up to 2**53, which no window's sum reaches.
            self.sums[name] += np.bincount(place, weights=weights, minlength=self.places).astype(np.int64)

    def _add_total(self, place: int, total: dict[str, int]) -> None:
        if place >= self.places:
            return
        for name in ("calls", "bytes", "frees", "freed_bytes", "misses", "fallbacks", "failures", "zeroed",
                     "remote_frees", "lifetime"):  # fmt: skip
            self.sums[name][place] += total[name]
        self.peak_by_place[place] += total["peak_bytes"]
        self.peak_bytes += total["peak_bytes"]

    def _finish(self) -> None:
        least = self.sums["least_size"]
        none = least == np.iinfo(np.int64).max
        least[none] = self.sums["largest_size"][none]
        self.sizes = [
            SizeUse(granted, entry[3], entry[1], entry[2], entry[4], *entry[5:9])
            for granted, entry in sorted(self._sizes.items())
        ]


class _Known(NamedTuple):
    address: NDArray[np.uint64]
    birth: I64
    size: I64
    place: I64
    alive: Bools
    used: I64

    @classmethod
    def empty(cls) -> _Known:
        none = np.empty(0, np.int64)
        return cls(np.empty(0, np.uint64), none, none, none, np.empty(0, np.bool_), none)


def _by_address(address: NDArray[np.uint64]) -> I64:
    """The order by address, equal ones as they stand. Address and place in one number sort ten times as fast."""
    bits = max(1, int(address.size - 1).bit_length())
    if not address.size or int(address.max()) - int(address.min()) >= 1 << (64 - bits):
        return np.argsort(address, kind="stable")
    key = (address - address.min()) << np.uint64(bits) | np.arange(address.size, dtype=np.uint64)
    key.sort()
    order: I64 = (key & np.uint64((1 << bits) - 1)).astype(np.int64)
    return order


def _in_turn(ends: I64, begins: I64) -> I64:
    """The order by row of ends and begins that stand behind each other; in a row the end comes first."""
    order: I64 = np.argsort(np.concatenate([2 * ends, 2 * begins + 1]), kind="stable")
    return order


def _short(values: I64) -> NDArray[np.integer]:
    """Numbers of sixteen bits if they fit: these sort in linear time."""
    return values.astype(np.uint16) if not values.size or int(values.max()) < 1 << 16 else values


def _lines(file: TraceFile, places: int) -> I64:
    """A number for the line of each place, so that places of one line have the same."""
    numbers: dict[tuple[str, int], int] = {}
    lines = np.zeros(places, np.int64)
    for number in range(1, places):
        place = file.place(number)
        if place is not None:
            lines[number] = numbers.setdefault((place.file, place.line), len(numbers) + 1)
    return lines


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 50 else otherwise
