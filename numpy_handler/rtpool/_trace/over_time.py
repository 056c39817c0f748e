"""What happened when: the time of a trace in equal steps, the bytes alive in each, and sums by step and place.

Memory depends on the steps and on how many places were at work in each, not on the number of events.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

STEPS = 1024
FIELDS = ("calls", "bytes", "frees", "freed_bytes", "temporaries", "temporary_bytes", "misses")
_MOST_ROWS = 1 << 21  # before they are added up
_FEWEST_STEPS = 16


class Cells(NamedTuple):
    """Sums by step and place, in the order of steps: one row for each pair that has any.

    `steps_together`: how many steps of the time are one here. More than one where so many places are at work that sums
    of each step would be too many.
    """

    step: I64
    place: I64
    sums: dict[str, I64]
    steps_together: int


class OverTime:
    """What happened in each step of a trace's time.

    Attributes
    ----------
    edges : array
        Where steps begin, and where the last one ends; in the recorder's units.
    most_alive : array
        The most bytes alive in each step.
    alive : array
        The bytes alive at the end of each.
    """

    def __init__(self, first: int, last: int, places: int, *, by_place: bool = False, steps: int = STEPS) -> None:
        length = max(last - first, 0) + 1
        steps = min(steps, length)
        self.edges: I64 = np.array([first + length * step // steps for step in range(steps + 1)], np.int64)
        self.steps = steps
        self.places = places
        self.by_place = by_place
        self.most_alive: I64 = np.zeros(steps, np.int64)
        self.alive: I64 = np.zeros(steps, np.int64)
        self._rows: list[tuple[I64, list[I64]]] = []
        self._pending = 0
        self._shift = 0  # so many times, steps were taken together in twos
        self._done = 0  # steps before this one are over

    def bounds(self, times: I64) -> tuple[int, I64]:
        """The first step that moments in order are in, and where each step from there on begins among them."""
        if not times.size:
            return self._done, np.zeros(1, np.int64)
        low = int(np.searchsorted(self.edges, times[0], "right")) - 1
        high = int(np.searchsorted(self.edges, times[-1], "right")) - 1
        low, high = max(low, 0), min(high, self.steps - 1)
        cuts = np.searchsorted(times, self.edges[low + 1 : high + 1])
        return low, np.concatenate([[0], cuts, [times.size]])

    def follow(self, times: I64, alive: I64, before: int) -> None:
        """Note the bytes alive after each event of a window; `before`: ahead of them."""
        low, cuts = self.bounds(times)
        if not times.size:
            return
        self.alive[self._done : low] = before
        self.most_alive[self._done : low] = np.maximum(self.most_alive[self._done : low], before)
        now = before
        for step, (begin, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True), low):
            most = now
            if end > begin:
                most, now = max(now, int(alive[begin:end].max())), int(alive[end - 1])
            self.most_alive[step] = max(int(self.most_alive[step]), most)
            self.alive[step] = now
        self._done = low + cuts.size - 2

    def finish(self, alive: int) -> None:
        """Fill in the steps after the last event."""
        self.alive[self._done + 1 :] = alive
        self.most_alive[self._done + 1 :] = np.maximum(self.most_alive[self._done + 1 :], alive)

    def step_of(self, times: I64) -> I64:
        """The step of each of a window's moments, which are in order."""
        low, cuts = self.bounds(times)
        return np.repeat(np.arange(low, low + cuts.size - 1), np.diff(cuts))

    def add(self, step: I64, place: I64, values: dict[str, I64]) -> None:
        """Add to the sums of steps and places; one value of each of the given fields a row."""
        if not step.size:
            return
        key = (step >> self._shift) * self.places + place
        low = int(key.min())
        width = int(key.max()) - low + 1
        if width <= 4 * key.size + 4096:
            used = np.flatnonzero(np.bincount(key - low, minlength=width))
            slot = np.zeros(width, np.int64)
            slot[used] = np.arange(used.size)
            row, keys = slot[key - low], used + low
        else:
            keys, row = np.unique(key, return_inverse=True)
        columns = [
            np.bincount(row, weights=values[name], minlength=keys.size).astype(np.int64)
            if name in values
            else np.zeros(keys.size, np.int64)
            for name in FIELDS
        ]
        self._rows.append((keys, columns))
        self._pending += keys.size
        if self._pending > _MOST_ROWS:
            self._add_up()

    def cells(self) -> Cells:
        """All sums by step and place."""
        self._add_up()
        if not self._rows:
            none = np.empty(0, np.int64)
            return Cells(none, none, {name: none for name in FIELDS}, 1)
        keys, columns = self._rows[0]
        sums = dict(zip(FIELDS, columns, strict=True))
        return Cells(keys // self.places, keys % self.places, sums, 1 << self._shift)

    def _add_up(self) -> None:
        if not self._rows:
            return
        keys, columns = _added([row[0] for row in self._rows], [row[1] for row in self._rows])
        while keys.size > _MOST_ROWS // 2 and self.steps >> self._shift > _FEWEST_STEPS:
            self._shift += 1
            keys, columns = _added([keys // self.places // 2 * self.places + keys % self.places], [columns])
        self._rows = [(keys, columns)]
        self._pending = 0


def _added(keys: list[I64], columns: list[list[I64]]) -> tuple[I64, list[I64]]:
    """Rows of the same key added up, in the order of keys."""
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return key[starts], [
        np.add.reduceat(np.concatenate(column)[order], starts) for column in zip(*columns, strict=True)
    ]
