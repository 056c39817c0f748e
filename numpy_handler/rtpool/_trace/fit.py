"""The smallest pool, and the plan, with which what was recorded would not have missed."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._pool.plan import Plan, PlanEntry
from .._pool.pool import Pool
from .._support.sizes import ADDRESS_SPACE, format_size
from .sizes import SizeUse, granule_bytes, shared_small_limit

_PAGE = 4096
_MOST_TRIED = 1 << 30  # a larger pool is not made to see whether it holds
_MOST_SQUEEZED = 64 << 20


class SharedFit(NamedTuple):
    """The smallest shared pool that holds what the recorded process made in it.

    Attributes
    ----------
    name : str
    bytes : int
        For `SharedPool.create`. Processes that make arrays in it, too, need theirs besides.
    sizes : int
    """

    name: str
    bytes: int
    sizes: int

    def __str__(self) -> str:
        return f"rtpool.SharedPool.create({self.bytes})  # {self.name}: {format_size(self.bytes)}; {self.sizes} sizes"


class Fit(NamedTuple):
    """A pool that would have had everything ready.

    Attributes
    ----------
    bytes : int
        ``Pool(bytes)`` holds the plan and nothing else.
    plan : Plan
        For `Pool.prepare`, or ``realtime(plan=...)``.
    shared : tuple of SharedFit
        Shared pools that were used, with what each needs.
    """

    bytes: int
    plan: Plan
    shared: tuple[SharedFit, ...] = ()

    def pool(self, **options: object) -> Pool:
        """Make that pool, with the plan ready. It may not grow unless `limit` says so."""
        made = Pool(self.bytes, **{"limit": self.bytes, **options})  # type: ignore[arg-type]
        made.prepare(self.plan)
        return made

    def __str__(self) -> str:
        private = f"rtpool.Pool({self.bytes})  # {format_size(self.bytes)}; {len(self.plan.entries)} sizes"
        return "\n".join([private] * (self.bytes > 0 or not self.shared) + [str(one) for one in self.shared])

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "bytes": self.bytes,
            "entries": [entry._asdict() for entry in self.plan.entries],
            "shared": [one._asdict() for one in self.shared],
        }


def fit(sizes: Iterable[SizeUse], shared: Iterable[tuple[str, list[SizeUse]]] = ()) -> Fit:
    """Work it out from how blocks of each granted size were used; `shared`: in each shared pool, by name."""
    found = _fit(sizes)
    return found._replace(shared=tuple(_fit_shared(name, uses) for name, uses in shared if uses))


def _fit_shared(name: str, sizes: list[SizeUse]) -> SharedFit:
    """Runs of granules for each size by itself: idle ones are kept for the next request of their size."""
    granule, total = 0, 0
    while granule_bytes(total) != granule:
        granule = granule_bytes(total)
        total = sum(_shared_bytes(size.granted, size.most_alive, granule) for size in sizes)
    return SharedFit(name, max(total, granule), len(sizes))


def _shared_bytes(size: int, most: int, granule: int) -> int:
    """What so many blocks take in a shared pool: as `claim_slab` in src/shared/heap.cpp."""
    if size > shared_small_limit(granule):
        return -(-size // granule) * granule * most
    slab = -(-max(8 * size, 16384) // granule) * granule
    return -(-most // min(slab // size, 65535)) * slab


def _fit(sizes: Iterable[SizeUse]) -> Fit:
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
    # A pool takes whole pages of the kernel.
    return Fit(-(-pages * _PAGE // mmap.PAGESIZE) * mmap.PAGESIZE, plan)


def _enough(plan: Plan) -> int:
    """Pages that hold a plan of small blocks."""
    if not plan.entries:
        return 0
    low = high = max(1, plan.bytes // _PAGE)
    while not _holds(plan, high):
        low, high = high + 1, 2 * high
    return _least(plan, low, high)


def _least(plan: Plan, low: int, high: int) -> int:
    """The fewest pages that hold a plan, between these: one at least, as a pool of none has no limit."""
    low = max(low, 1)
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
