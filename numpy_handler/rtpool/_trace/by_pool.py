"""Whose memory events are about: sums by pool, and how blocks of shared pools were used."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .events import FALLBACK, HIT, NEVER
from .file import PoolRange
from .sizes import Sizes, SizeUse, granted_by_shared, granted_bytes, granule_bytes, grouped

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

ELSEWHERE = "NumPy's own allocator"


class PoolSums(NamedTuple):
    """What was asked of one pool. `pool` is `None` for what the pools passed on to NumPy's own allocator."""

    pool: PoolRange | None
    calls: int
    bytes: int
    peak_bytes: int
    misses: int
    sizes: list[SizeUse]


class ByPool:
    """Sums by pool, a window at a time. An address that is no pool's is NumPy's own allocator's.

    Whose it is goes by the time: where one pool was, a later one may be.
    """

    def __init__(self, pools: dict[int, PoolRange]) -> None:
        self._pools = [pools[number] for number in sorted(pools)]
        self._owners = Owners(self._pools)
        count = len(self._pools) + 1  # the last is elsewhere
        self._calls, self._bytes, self._misses = (np.zeros(count, np.int64) for _ in range(3))
        self._alive, self._peak = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._shared = [number for number, pool in enumerate(self._pools) if pool.shared]
        self._sizes = {
            number: Sizes(partial(granted_by_shared, granule=granule_bytes(self._pools[number].capacity)))
            for number in self._shared
        }
        # Private pools grant all alike. What they passed on counts with them: a larger one would have served it.
        self._private = Sizes(granted_bytes)

    def add(
        self, time: I64, address: U64, change: I64, ended: I64, begun: I64, made: Bools, outcome: U8, zeroed: Bools
    ) -> None:
        """Count a window's rows, in the order of time.

        `change`: bytes alive after a row, less those before. `ended`, `begun`: bytes of the block that ends and of the
        one that begins in a row, -1: none does.
        """
        whose = self._owners.of(time, address)
        missed, refused = outcome != HIT, outcome == FALLBACK
        at = whose[made]
        count = self._calls.size
        self._calls += np.bincount(at, minlength=count)
        self._bytes += np.bincount(at, weights=begun[made], minlength=count).astype(np.int64)
        if missed.any():
            self._misses += np.bincount(whose[made & missed], minlength=count)
        self._follow(whose, change)
        if not self._shared:
            return self._private.add(ended, begun, made, missed, refused, zeroed)
        columns: tuple[Any, ...] = (ended, begun, made, missed, refused, zeroed)
        private = np.ones(whose.size, np.bool_)
        for number in self._shared:
            rows = whose == number
            if rows.any():
                private &= ~rows
                self._sizes[number].add(*(column[rows] for column in columns))
        self._private.add(*(column[private] for column in columns))

    def refuse(self, sizes: I64) -> None:
        """Count requests that nobody served: of which pool they were asked is not in a trace."""
        self._private.refuse(sizes)

    def private_sizes(self) -> list[SizeUse]:
        """How blocks of all private pools were used."""
        return self._private.uses()

    def sums(self) -> list[PoolSums]:
        """Pools that something was asked of, or had something alive; most bytes first."""
        found = [
            PoolSums(
                self._pools[number] if number < len(self._pools) else None,
                int(self._calls[number]), int(self._bytes[number]), int(self._peak[number]), int(self._misses[number]),
                self._sizes[number].uses() if number in self._sizes else [],
            )
            for number in np.flatnonzero((self._calls > 0) | (self._peak > 0)).tolist()
        ]  # fmt: skip
        return sorted(found, key=lambda sums: -sums.bytes)

    def _follow(self, whose: I64, change: I64) -> None:
        """The most bytes alive at once in each pool."""
        if (whose == whose[0]).all():
            starts, groups = np.zeros(1, np.int64), whose[:1]
        else:
            order, starts = grouped(whose)
            groups, change = whose[order[starts]], change[order]
        total = np.cumsum(change)
        before = total[starts] - change[starts]
        most = np.maximum.reduceat(total, starts) - before + self._alive[groups]
        self._peak[groups] = np.maximum(self._peak[groups], most)
        self._alive[groups] += np.append(before[1:], total[-1]) - before


class Owners:
    """Whose addresses are, as time goes on: pools have theirs from when they begin until they end."""

    def __init__(self, pools: list[PoolRange]) -> None:
        self._elsewhere = len(pools)
        # Where addresses change hands at any time.
        self._edges = np.unique(np.array([edge for pool in pools for edge in (pool.first, _end(pool))], np.uint64))
        self._owner = np.full(self._edges.size + 1, self._elsewhere, np.int64)
        ranges = np.array([(pool.first, _end(pool)) for pool in pools], np.uint64).reshape(-1, 2)
        self._spans = np.searchsorted(self._edges, ranges) + 1
        # What an event at the very time still belongs to: ends come after it, begins before it.
        begins = [(pool.begun, number, True) for number, pool in enumerate(pools)]
        ends = [(pool.ended + 1, number, False) for number, pool in enumerate(pools) if pool.ended != NEVER]
        self._changes = sorted(begins + ends, key=lambda change: change[0])[::-1]  # the next one last

    def of(self, time: I64, address: U64) -> I64:
        """Numbers of pools for events in the order of time, none of them earlier than those asked for before."""
        whose = np.empty(time.size, np.int64)
        at = 0
        while self._changes and self._changes[-1][0] <= time[-1]:
            until = at + int(np.searchsorted(time[at:], self._changes[-1][0]))
            self._look_up(address[at:until], whose[at:until])
            at = until
            _, number, begins = self._changes.pop()
            begin, end = self._spans[number].tolist()
            span = self._owner[begin:end]
            if begins:
                span[:] = number
            else:
                span[span == number] = self._elsewhere
        self._look_up(address[at:], whose[at:])
        return whose

    def _look_up(self, address: U64, whose: I64) -> None:
        if not address.size:
            return
        first, last = np.searchsorted(self._edges, [address.min(), address.max()], "right").tolist()
        if first == last:
            whose[:] = self._owner[first]
        else:
            whose[:] = self._owner[np.searchsorted(self._edges, address, "right")]


def _end(pool: PoolRange) -> int:
    return pool.first + pool.bytes // 16
