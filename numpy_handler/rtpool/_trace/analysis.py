"""One pass over a trace's events: sums by place, what was alive at the peak, iterations, misses, sizes.

Events come in windows, so that memory does not grow with the trace. Windows are as small as the processor's caches
like them, and grow with the number of live blocks, which are looked at in each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .by_pool import ByPool, PoolSums
from .events import ALIVE, ALLOCATE, FAILED, FALLBACK, FREE, HIT, REMOTE, ZEROED, Events
from .file import TraceFile
from .lives import BEGIN, MADE, Begins, Ends, Lives, Rows
from .marks import Marks
from .over_time import OverTime
from .sizes import SizeUse, granted_bytes, grouped, steps_in_turn

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCALAR = 16  # NumPy makes an array of a Python number that it computes with, at most this large
WINDOW = 1 << 17
_COUNTED = (
    "calls", "bytes", "frees", "freed_bytes", "lifetime", "longest", "temporaries", "temporary_bytes", "misses",
    "fallbacks", "failures", "zeroed", "remote_frees", "warm", "scalars", "most_alive", "least_size", "largest_size",
)  # fmt: skip


class Analysis:
    """What one pass over the events finds. Arrays by place have one entry a number of a place (or stack).

    Parameters
    ----------
    file : TraceFile
    window : int, optional
        Events at a time, at least.
    by_place : bool, default False
        Whether `over_time` has sums by place as well, for pictures.

    Attributes
    ----------
    sums : dict of str to array
        By place: see `_COUNTED`. Lifetimes in the recorder's units.
    unit : {"iteration", "line"}
        What a temporary is born and gone within.
    marks : Marks
    iterations : int
    peak_bytes, peak_time : int
        The most bytes alive at once, as asked for, and when.
    peak_by_place : array
        What was alive then.
    over_time : OverTime
        The most bytes alive, over time.
    working_set : array
        Bytes of distinct memory handed out in each iteration.
    handed_out : dict of str to int
        Bytes of allocations whose memory was last used so long ago that it may lie in level 2, in level 3, in neither,
        or that were never seen before.
    sizes : list of SizeUse
        Of private pools.
    pools : list of PoolSums
        Most bytes first; empty in a recording of totals.
    unknown_frees : int
        Of blocks that the trace does not know.
    first_time, last_time : int
    """

    def __init__(self, file: TraceFile, window: int = WINDOW, *, by_place: bool = False) -> None:
        places = 1 + max([0, *file.places, *file.stacks, *(total.place for total in file.totals)])
        self.places = min(places, 1 << 22)
        self.sums: dict[str, I64] = {name: np.zeros(self.places, np.int64) for name in _COUNTED}
        self.sums["least_size"][:] = np.iinfo(np.int64).max
        self.marks = Marks(file)
        self.iterations = len(self.marks.iterations)
        self.unit = "iteration" if self.iterations else "line"
        self.peak_bytes = 0
        self.peak_time = 0
        self.peak_by_place: I64 = np.zeros(self.places, np.int64)
        self.handed_out = {"level2": 0, "level3": 0, "memory": 0, "new": 0}
        self.first_time = self.last_time = 0
        self.live_bytes = 0
        self.alive_before = 0
        self.working_set: I64 = np.zeros(self.iterations, np.int64)
        begin, end = (min(c.first for c in file.chunks), max(c.last for c in file.chunks)) if file.chunks else (0, 0)
        self.over_time = OverTime(begin, end, self.places, by_place=by_place)
        caches = file.meta.get("caches")
        caches = caches if isinstance(caches, dict) else {}
        self.level2 = _number(caches.get("level2"), 1 << 20)
        self.level3 = max(_number(caches.get("level3"), 32 << 20), self.level2)
        self._line_of = _lines(file, self.places) if self.unit == "line" else None
        self._alive_now: I64 = np.zeros(self.places, np.int64)
        self._by_pool = ByPool(file.pools)
        self._handed = 0  # bytes handed out so far
        self._lives = Lives(2 * self.level3)
        # What is done once a window and place, or once a window and live block, is to be little beside its events.
        for events in file.windows(window, lambda: max(self.places, 2 * self._lives.known.address.size)):
            self._add(events)
        self.over_time.finish(self.live_bytes)
        for total in file.totals:
            self._add_total(total.place, total._asdict())
        least = self.sums["least_size"]
        none = least == np.iinfo(np.int64).max
        least[none] = self.sums["largest_size"][none]
        self.sizes: list[SizeUse] = self._by_pool.private_sizes()
        self.pools: list[PoolSums] = self._by_pool.sums()
        self.unknown_frees = self._lives.unknown_frees

    # --- a window ---

    def _add(self, events: Events) -> None:
        if not self.first_time:
            self.first_time = int(events.time[0])
        self.last_time = int(events.time[-1])
        kind = events.kind & 3
        outcome = np.where(kind == ALLOCATE, events.kind >> 2 & 3, np.uint8(HIT))
        failed = outcome == FAILED
        if failed.any():
            self._count_failures(events.take(failed))
        rows = (kind <= FREE) | (kind == ALIVE)
        rows &= ~failed
        if not rows.all():
            events, kind, outcome = events.take(rows), kind[rows], outcome[rows]
        if not len(events):
            return
        made, begins = kind == ALLOCATE, kind != FREE
        self.alive_before += int(np.count_nonzero(kind == ALIVE))
        place = np.minimum(events.place, self.places - 1).astype(np.int32)
        iteration = self.marks.iteration(events.time)
        handed = np.cumsum(np.where(made, events.size, 0))
        handed += self._handed
        self._handed = int(handed[-1])
        known = self._lives.known
        ends, begun = self._lives.match(
            Rows(
                events.address, events.time, events.size, np.where(made, place, np.int32(0)), handed,
                np.where(begins, iteration, np.int32(-1)), begins * np.uint8(BEGIN) + made * np.uint8(MADE),
            ),
            self._handed,
        )  # fmt: skip
        gone = self._count_ends(events, place, iteration, ends)
        self._count_begins(events, place, iteration, outcome, begun)
        before = self.live_bytes
        change: I64 = np.where(begins, events.size, 0)
        change[ends.row] -= ends.size
        alive = np.cumsum(change) + before
        self.live_bytes = int(alive[-1])
        if int(alive.max()) > self.peak_bytes:
            self._note_peak(events, alive, known, np.where(made, place, np.int32(0)), begins, ends)
        self.over_time.follow(events.time, alive, before)
        if self.over_time.by_place:
            self._place_in_time(events, place, made, outcome, ends, gone)
        ended = np.full(len(events), -1)
        ended[ends.row] = ends.size
        self._by_pool.add(
            events.time, events.address, change, ended, np.where(begins, events.size, -1), made, outcome,
            events.kind & ZEROED != 0,
        )  # fmt: skip
        maker = np.full(len(events), -1)
        large = ends.size > SCALAR
        maker[ends.row[large]] = ends.maker[large]
        self._count_alive(np.where(made & (events.size > SCALAR), place, -1), maker)

    def _count_failures(self, failed: Events) -> None:
        place = np.minimum(failed.place, self.places - 1).astype(np.int64)
        self._count("failures", place)
        self._count("misses", place)
        self._by_pool.refuse(failed.size)
        if self.over_time.by_place:
            self.over_time.add(self.over_time.step_of(failed.time), place, {"misses": np.ones_like(place)})

    def _count_ends(self, events: Events, place: NDArray[np.int32], iteration: NDArray[np.int32], ends: Ends) -> Bools:
        """Count what ended; gives which of it were temporaries."""
        maker = ends.maker
        self._count("frees", maker)
        self._count("freed_bytes", maker, ends.size)
        known = maker > 0
        self._count("lifetime", maker, np.where(known, ends.life, 0))
        self._raise("longest", maker[known], ends.life[known])
        remote = (events.kind[ends.row] & REMOTE != 0) & ends.freed
        if remote.any():
            self._count("remote_frees", maker[remote])
        gone: Bools
        if self._line_of is None:
            gone = known & (ends.begun_in >= 0) & (ends.begun_in == iteration[ends.row])
        else:
            by = place[ends.row]
            gone = known & (self._line_of[maker] == self._line_of[by]) & (by > 0)
        self._count("temporaries", maker[gone])
        self._count("temporary_bytes", maker[gone], ends.size[gone])
        return gone

    def _count_begins(
        self, events: Events, place: NDArray[np.int32], iteration: NDArray[np.int32], outcome: NDArray[np.uint8],
        begun: Begins,
    ) -> None:  # fmt: skip
        at, sizes, outcome = place[begun.row], events.size[begun.row], outcome[begun.row]
        self._count("calls", at)
        self._count("bytes", at, sizes)
        zeroed = events.kind[begun.row] & ZEROED != 0
        small = sizes <= SCALAR
        for name, chosen in (("misses", outcome != HIT), ("fallbacks", outcome == FALLBACK), ("zeroed", zeroed),
                             ("scalars", small)):  # fmt: skip
            if chosen.any():
                self._count(name, at[chosen])
        large = ~small
        self._raise("largest_size", at, sizes)
        self._lower("least_size", at[large], sizes[large])
        # How much was handed out since the memory was last used says where it may still be.
        reach = begun.distance + sizes
        warm = begun.again & (reach <= self.level2)
        near = begun.again & (reach <= self.level3)
        bytes_of = [int(sizes[chosen].sum()) for chosen in (warm, near, begun.again)]
        for name, value in zip(self.handed_out, np.diff([0, *bytes_of, int(sizes.sum())]).tolist(), strict=True):
            self.handed_out[name] += value
        self._count("warm", at[near])
        if self.iterations:
            # Distinct memory of an iteration: what was not handed out in it before.
            now = iteration[begun.row]
            fresh = (now >= 0) & (begun.last_in != now)
            if fresh.any():
                now = now[fresh]
                first = int(now.min())
                added = np.bincount(now - first, weights=granted_bytes(sizes[fresh])).astype(np.int64)
                self.working_set[first : first + added.size] += added

    def _note_peak(
        self, events: Events, alive: I64, known: Rows, place: NDArray[np.int32], begins: Bools, ends: Ends
    ) -> None:
        """What was alive at the peak: what was known, and what began up to there and did not end."""
        at = int(np.argmax(alive))
        self.peak_bytes, self.peak_time = int(alive[at]), int(events.time[at])
        total = np.zeros(self.places, np.int64)
        living = (known.flags & BEGIN) != 0
        for maker, sizes, sign in (
            (known.place[living], known.size[living], 1),
            (place[: at + 1][begins[: at + 1]], events.size[: at + 1][begins[: at + 1]], 1),
            (ends.maker[ends.row <= at], ends.size[ends.row <= at], -1),
        ):
            if maker.size:
                total += sign * np.bincount(maker, weights=sizes, minlength=self.places).astype(np.int64)
        self.peak_by_place = total

    def _count_alive(self, begun: I64, maker: I64) -> None:
        """The most blocks of each place that were alive at once."""
        step, whose, _ = steps_in_turn(maker, begun)
        if not step.size:
            return
        order, starts = grouped(whose)
        step = step[order]
        total = np.cumsum(step, dtype=np.int64)
        groups = whose[order[starts]]
        before = total[starts] - step[starts]
        most = np.maximum.reduceat(total, starts) - before + self._alive_now[groups]
        self.sums["most_alive"][groups] = np.maximum(self.sums["most_alive"][groups], most)
        self._alive_now[groups] += np.add.reduceat(step, starts, dtype=np.int64)

    def _place_in_time(
        self, events: Events, place: NDArray[np.int32], made: Bools, outcome: NDArray[np.uint8], ends: Ends, gone: Bools
    ) -> None:
        step = self.over_time.step_of(events.time)
        at = np.flatnonzero(made)
        ones = np.ones(at.size, np.int64)
        self.over_time.add(
            step[at], place[at].astype(np.int64),
            {"calls": ones, "bytes": events.size[at], "misses": (outcome[at] != HIT).astype(np.int64)},
        )  # fmt: skip
        self.over_time.add(
            step[ends.row], ends.maker.astype(np.int64),
            {
                "frees": np.ones_like(ends.size), "freed_bytes": ends.size,
                "temporaries": gone.astype(np.int64), "temporary_bytes": ends.size * gone,
            },
        )  # fmt: skip

    # --- sums ---

    def _count(self, name: str, place: NDArray[np.integer], weights: I64 | None = None) -> None:
        if place.size:
            # Whole numbers stay whole up to 2**53, which no window's sum reaches.
            self.sums[name] += np.bincount(place, weights=weights, minlength=self.places).astype(np.int64)

    def _raise(self, name: str, place: NDArray[np.integer], values: I64) -> None:
        """Note larger values; after a while there are few."""
        more = values > self.sums[name][place]
        if more.any():
            np.maximum.at(self.sums[name], place[more], values[more])

    def _lower(self, name: str, place: NDArray[np.integer], values: I64) -> None:
        less = values < self.sums[name][place]
        if less.any():
            np.minimum.at(self.sums[name], place[less], values[less])

    def _add_total(self, place: int, total: dict[str, int]) -> None:
        if place >= self.places:
            return
        for name in ("calls", "bytes", "frees", "freed_bytes", "misses", "fallbacks", "failures", "zeroed",
                     "remote_frees", "lifetime"):  # fmt: skip
            self.sums[name][place] += total[name]
        self.peak_by_place[place] += total["peak_bytes"]
        self.peak_bytes += total["peak_bytes"]


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
