"""The smallest pool, and the plan, with which what was recorded would not have missed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._pool.plan import Plan, PlanEntry
from .._pool.pool import Pool
from .._support.sizes import ADDRESS_SPACE, format_size
from .sizes import SizeUse

_PAGE = 4096
_MOST_TRIED = 1 << 30  # a larger pool is not made to see whether it holds
_MOST_SQUEEZED = 64 << 20


class Fit(NamedTuple):
    """A pool that would have had everything ready.

    Attributes
    ----------
    bytes : int
        ``Pool(bytes)`` holds the plan and nothing else.
    plan : Plan
        For `Pool.prepare`, or ``realtime(plan=...)``.
    """

    bytes: int
    plan: Plan

    def pool(self, **options: object) -> Pool:
        """Make that pool, with the plan ready. It may not grow unless `limit` says so."""
        made = Pool(self.bytes, **{"limit": self.bytes, **options})  # type: ignore[arg-type]
        made.prepare(self.plan)
        return made

    def __str__(self) -> str:
        return f"rtpool.Pool({self.bytes})  # {format_size(self.bytes)}; {len(self.plan.entries)} sizes"


def fit(sizes: Iterable[SizeUse]) -> Fit:
    """Work it out from how blocks of each granted size were used."""
    # What was alive before the recording began was asked for as well.
    entries = [
        PlanEntry(
            size.granted, size.requested or size.granted, size.most_alive, max(size.calls, size.most_alive), size.zeroed
        )
        for size in sizes
        if size.most_alive and size.granted < ADDRESS_SPACE
    ]
    plan = Plan(entries)
    if not entries:
        return Fit(0, plan)
    # Blocks of whole pages take just these. Small ones take slabs, and runs of less than four pages come four at a
    # time: for them the least that holds is tried out.
    large = [entry for entry in entries if entry.size >= 4 * _PAGE]
    small = Plan([entry for entry in entries if entry.size < 4 * _PAGE])
    pages = sum(entry.size * entry.most_alive for entry in large) // _PAGE + _enough(small)
    if pages * _PAGE <= _MOST_TRIED:
        while not _holds(plan, pages):
            pages += max(1, pages // 64)
    if pages * _PAGE <= _MOST_SQUEEZED:
        # Small runs may fit between the large ones.
        pages = _least(plan, plan.bytes // _PAGE, pages)
    return Fit(pages * _PAGE, plan)


def _enough(plan: Plan) -> int:
    """Pages that hold a plan of small blocks."""
    if not plan.entries:
        return 0
    low = high = max(1, plan.bytes // _PAGE)
    while not _holds(plan, high):
        low, high = high + 1, 2 * high
    return _least(plan, low, high)


def _least(plan: Plan, low: int, high: int) -> int:
    """The fewest pages that hold a plan, between these."""
    while low < high:
        middle = (low + high) // 2
        if _holds(plan, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _holds(plan: Plan, pages: int) -> bool:
    size = max(1, pages) * _PAGE
    pool = Pool(size, limit=size, prefault=False, huge_pages=False, name="fit")
    try:
        pool.prepare(plan)
    except MemoryError:
        return False
    return True
