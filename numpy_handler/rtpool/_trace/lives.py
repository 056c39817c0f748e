"""The lives of blocks: which free ends which allocation, and what a block's memory was used for before.

Events come in windows, in the order of time. A window is sorted by address once; there neighbours are the steps of one
block's history, so that everything about the step before is a look at the row before. What is known of addresses
from earlier windows stands in front of the window's own rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

BEGIN, MADE, KNOWN = 1, 2, 4  # of a row: a block begins; within the recording; the row is of an earlier window


class Rows(NamedTuple):
    """Steps of blocks' histories, one row each: columns beside each other.

    `time` is the step's own, `used` how many bytes had been handed out by then, `iteration` in which iteration the
    block was made, -1: in none. `size`, `place` and `iteration` are those of blocks that begin.
    """

    address: NDArray[np.uint64]
    time: I64
    size: I64
    place: I32
    used: I64
    iteration: I32
    flags: U8

    def take(self, index: I64 | Bools) -> Rows:
        columns: tuple[Any, ...] = self
        return Rows(*(column[index] for column in columns))


NO_ROWS = Rows(
    np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64),
    np.empty(0, np.int32), np.empty(0, np.uint8),
)  # fmt: skip


class Ends(NamedTuple):
    """Lives that end in a window: by which of its rows, and what had begun."""

    row: I64
    maker: I32
    size: I64
    life: I64
    begun_in: I32  # iteration
    freed: Bools  # else the block was made again without a free


class Begins(NamedTuple):
    """Allocations of a window, with what their memory was used for before."""

    row: I64
    again: Bools  # whether the memory is known
    distance: I64  # bytes handed out since it was last used; where it is known
    last_in: I32  # the iteration in which the block before was made; -1: none, or not known


class Lives:
    """What is known of addresses: live blocks, and memory that was used lately.

    Attributes
    ----------
    known : Rows
        One a block, in the order of addresses.
    unknown_frees : int
        Of blocks that the trace does not know.
    """

    def __init__(self, remembered: int) -> None:
        self.known = NO_ROWS
        self.unknown_frees = 0
        self._remembered = remembered  # bytes handed out since a free, after which its memory is forgotten

    def match(self, window: Rows, handed_out: int) -> tuple[Ends, Begins]:
        """Follow the histories through a window's rows; `handed_out`: bytes by its end."""
        known = self.known.address.size
        address = np.concatenate([self.known.address, window.address])
        order = by_address(address)
        pairs: Any = zip(self.known[1:], window[1:], strict=True)
        rows = Rows(address[order], *(np.concatenate(pair)[order] for pair in pairs))
        same = np.zeros(order.size, np.bool_)  # as the row before
        np.equal(rows.address[1:], rows.address[:-1], out=same[1:])
        begins = (rows.flags & BEGIN) != 0
        own = order >= known
        was_alive = same.copy()
        was_alive[1:] &= begins[:-1]
        was_alive &= own
        frees = own & ~begins
        self.unknown_frees += int(np.count_nonzero(frees & ~was_alive))

        at = np.flatnonzero(was_alive)
        before = at - 1
        ends = Ends(
            order[at] - known, rows.place[before], rows.size[before], rows.time[at] - rows.time[before],
            rows.iteration[before], ~begins[at],
        )  # fmt: skip

        # When memory is used again, it is asked in which iteration the block before was made: a free passes that on.
        iteration = rows.iteration
        passed_on = np.flatnonzero(frees & same)
        iteration[passed_on] = iteration[passed_on - 1]

        at = np.flatnonzero((rows.flags & MADE) != 0)
        before = np.maximum(at - 1, 0)
        again = same[at]
        distance = rows.used[at] - rows.size[at] - rows.used[before]
        begun = Begins(order[at] - known, again, distance, np.where(again, iteration[before], -1).astype(np.int32))

        keep = np.ones(order.size, np.bool_)
        np.logical_not(same[1:], out=keep[:-1])  # the last of each address
        keep &= begins | (handed_out - rows.used <= self._remembered)
        kept = rows.take(keep)
        self.known = kept._replace(flags=((kept.flags & BEGIN) | KNOWN).astype(np.uint8))
        return ends, begun


def by_address(address: NDArray[np.uint64]) -> I64:
    """The order by address, equal ones as they stand. Address and place in one number sort ten times as fast."""
    bits = max(1, int(address.size - 1).bit_length())
    if not address.size or int(address.max()) - int(address.min()) >= 1 << (64 - bits):
        return np.argsort(address, kind="stable")
    key = (address - address.min()) << np.uint64(bits) | np.arange(address.size, dtype=np.uint64)
    key.sort()
    order: I64 = (key & np.uint64((1 << bits) - 1)).astype(np.int64)
    return order
