"""How blocks of each granted size were used: the most alive at once, and why misses were misses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_PAGE = 4096
_MOST_GRANULES = 65536
_PAGE_SIZES = 4096  # sizes of whole pages are numbered from here on, smaller ones by themselves


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
    step = np.where(sizes <= 4032, 63, 4095)
    granted: I64 = np.bitwise_and(np.maximum(sizes, 1) + step, ~step)
    return granted


def granule_bytes(capacity: int) -> int:
    """What a shared pool of that size hands to processes at least: 4096, or what makes at most 65,536 of it."""
    granule = _PAGE
    while -(-capacity // granule) > _MOST_GRANULES:
        granule *= 2
    return granule


def shared_small_limit(granule: int) -> int:
    """The largest size that shares its granules with others of its size."""
    return max(32768, min(8 * granule, 64 << 20))


def granted_by_shared(sizes: I64, granule: int) -> I64:
    """What a shared pool with such granules grants for requests: as src/shared/size_class.hpp has it."""
    sizes = np.maximum(sizes, 1)
    pages = -(-sizes // _PAGE)
    # Above 16 pages eight steps for each doubling.
    bits = np.frexp((pages - 1).astype(np.float64))[1].astype(np.int64)
    step = np.where(pages <= 16, 0, bits - 4)
    of_pages = (-(-pages >> step) << step) * _PAGE
    step = np.where(sizes <= 1024, 64, np.where(sizes <= 2048, 128, 256))
    small = np.where(sizes <= _PAGE, -(-sizes // step) * step, of_pages)
    granted: I64 = np.where(sizes <= shared_small_limit(granule), small, -(-sizes // granule) * granule)
    return granted


class _Use:
    __slots__ = ("alive", "calls", "first", "given_back", "more_alive", "most_alive", "refused", "requested", "zeroed")

    def __init__(self) -> None:
        self.alive = self.most_alive = self.calls = self.requested = self.zeroed = 0
        self.first = self.more_alive = self.given_back = self.refused = 0


class Sizes:
    """Counts by granted size, a window at a time."""

    def __init__(self, granted: Callable[[I64], I64]) -> None:
        self._granted = granted
        self._uses: dict[int, _Use] = {}

    def add(self, ended: I64, begun: I64, made: Bools, missed: Bools, refused: Bools, zeroed: Bools) -> None:
        """Count a window's rows, in the order of time.

        `ended`, `begun`: bytes of the block that ends and of the one that begins in a row; -1: none does. The others
        say of rows in which one begins how it was asked for and served.
        """
        step, sizes, row = steps_in_turn(ended, begun)
        if not step.size:
            return
        granted = self._granted(sizes)
        order, starts = grouped(np.where(granted <= 4032, granted, (granted >> 12) + _PAGE_SIZES))
        step, sizes, row, granted = step[order], sizes[order], row[order], granted[order]
        alive = np.cumsum(step, dtype=np.int64)
        bounds = np.append(starts, step.size).tolist()
        of_group = granted[starts].tolist()
        asked = (step > 0) & made[row]
        calls = np.add.reduceat(asked, starts, dtype=np.int64).tolist()
        zeros = np.add.reduceat(asked & zeroed[row], starts, dtype=np.int64).tolist()
        largest = np.maximum.reduceat(np.where(asked, sizes, 0), starts).tolist()
        misses = asked & missed[row]
        with_misses = np.logical_or.reduceat(misses, starts).tolist()
        most = np.maximum.reduceat(alive, starts).tolist()
        base = 0
        for number, size in enumerate(of_group):
            use = self._use(size)
            first, end = bounds[number], bounds[number + 1]
            use.calls += calls[number]
            use.zeroed += zeros[number]
            use.requested = max(use.requested, largest[number])
            if with_misses[number]:
                part = slice(first, end)
                self._explain(use, alive[part] - base + use.alive, misses[part], refused[row[part]])
            use.most_alive = max(use.most_alive, most[number] - base + use.alive)
            total = int(alive[end - 1])
            use.alive += total - base
            base = total

    def _explain(self, use: _Use, alive: I64, misses: Bools, refused: Bools) -> None:
        """Why the misses among the steps of one size were misses."""
        before = np.maximum.accumulate(np.append(use.most_alive, alive))[:-1]
        more = misses & ~refused & (alive > before)
        first = more & (before == 0)
        use.refused += int(np.count_nonzero(misses & refused))
        use.first += int(np.count_nonzero(first))
        use.more_alive += int(np.count_nonzero(more & ~first))
        use.given_back += int(np.count_nonzero(misses & ~refused & ~more))

    def refuse(self, sizes: I64) -> None:
        """Count requests that nobody served."""
        found, counts = np.unique(self._granted(sizes), return_counts=True)
        for granted, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._use(granted).refused += count

    def uses(self) -> list[SizeUse]:
        """All of them, the smallest first."""
        return [
            SizeUse(granted, use.requested, use.most_alive, use.calls, use.zeroed, use.first, use.more_alive,
                    use.given_back, use.refused)
            for granted, use in sorted(self._uses.items())
        ]  # fmt: skip

    def _use(self, granted: int) -> _Use:
        return self._uses.setdefault(granted, _Use())


def steps_in_turn(ended: I64, begun: I64) -> tuple[NDArray[np.int8], I64, I64]:
    """What ends and begins, in turn: -1 or 1, whose it is (a size or place), and the row; in a row the end comes first.

    `ended`, `begun`: a number of each row, -1 where nothing does.
    """
    has_end, has_begin = ended >= 0, begun >= 0
    row = np.flatnonzero(has_end | has_begin)
    step = np.where(has_begin[row], np.int8(1), np.int8(-1))
    whose = np.where(has_begin[row], begun[row], ended[row])
    both = np.flatnonzero(has_end[row] & has_begin[row])
    if both.size:
        whose = np.insert(whose, both, ended[row[both]])
        step = np.insert(step, both, np.int8(-1))
        row = np.insert(row, both, row[both])
    return step, whose, row


def grouped(whose: I64) -> tuple[I64, I64]:
    """An order in which equal numbers stand together, each group as it was, and where the groups begin."""
    # Numbers of sixteen bits sort in linear time.
    short = whose.astype(np.uint16) if int(whose.max()) < 1 << 16 else whose
    order: I64 = np.argsort(short, kind="stable")
    short = short[order]
    return order, np.flatnonzero(np.concatenate([[True], short[1:] != short[:-1]]))
