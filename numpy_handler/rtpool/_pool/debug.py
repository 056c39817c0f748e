"""What debug pools tell: the blocks that are alive, by the lines that made them, and a last look at the end."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterable
from typing import NamedTuple

from .. import _core
from .._support.errors import raise_if_broken
from .._support.sizes import format_size


class LiveBlock(NamedTuple):
    """A block of a debug pool that has not been freed.

    Attributes
    ----------
    address : int
        Where its first byte is; that of the array's data, as in ``array.ctypes.data``.
    size : int
        Bytes asked for.
    number : int
        Counts the blocks the pool has made, from 1.
    age : float
        Seconds since it was made.
    site : str
        Where it was made: file, line and function in Python, outside of NumPy; ``"(no Python frame)"`` if the thread
        that made it was not running Python.
    """

    address: int
    size: int
    number: int
    age: float
    site: str

    def __str__(self) -> str:
        return f"{format_size(self.size):>10}  #{self.number}  {self.age:.3f} s old  {self.site}"


class Site(NamedTuple):
    """The live blocks that were made at one line."""

    site: str
    blocks: int
    bytes: int


def outstanding(pool: _core.Pool) -> list[LiveBlock]:
    """The live blocks of a debug pool."""
    if not pool._debug():
        raise RuntimeError(
            f"{pool!r} does not remember where its blocks were made; make it with debug=True, or set RTPOOL_DEBUG=1"
            " for the default pool"
        )
    return [
        LiveBlock(address, size, number, age / 1e9, site) for address, size, number, age, site in pool._outstanding()
    ]


def by_site(blocks: Iterable[LiveBlock]) -> list[Site]:
    """Add up blocks by the line that made them, most bytes first."""
    sums: dict[str, tuple[int, int]] = {}
    for block in blocks:
        count, size = sums.get(block.site, (0, 0))
        sums[block.site] = count + 1, size + block.size
    sites = [Site(site, count, size) for site, (count, size) in sums.items()]
    return sorted(sites, key=lambda site: (-site.bytes, site.site))


_pools: weakref.WeakSet[_core.Pool] = weakref.WeakSet()


def check_at_exit(pool: _core.Pool) -> None:
    """Look at the red zones and the quarantine of a pool once more when the interpreter ends; reports go to stderr."""
    if not _pools:
        atexit.unregister(_check_all)
        atexit.register(_check_all)
    _pools.add(pool)


def _check_all() -> None:
    for pool in list(_pools):
        broken = pool._check()
        if broken is not None and not broken[0].startswith("DB-"):  # those have been reported, with their lines
            raise_if_broken(pool, broken)
