"""What a pool was asked for and what is in force; what to do where the two differ."""

import errno as errno_names
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import _core
from .._support.fixes import errno_text, lift_memlock
from .._support.huge_pages import explicit_fix, transparent_fix, transparent_state
from .._support.options import HUGE_PAGES
from .._support.sizes import comes_out_in_decimals, format_size
from .._support.table import columns

# As the core numbers them.
STEPS = ("none", "size", "reserve", "commit", "prefault", "lock", "huge_pages", "metadata")

_FREE_MEMORY = "free memory, or raise the memory limit of this process or container"

Failure = tuple[int, int, int, int]  # step, errno, asked, got


class Degradation(NamedTuple):
    """One setting of a pool that is not in force as asked.

    Attributes
    ----------
    setting : str
        ``"prefault"``, ``"lock"``, ``"huge_pages"``, ...
    asked, got : int
        Bytes; for huge pages the size of a page and the bytes the kernel had in such pages; for locks the bytes to
        lock and the limit of this process.
    error : int
        The ``errno`` of the refusal.
    reason, fix : str
        What stood in the way, and the line that changes it.
    """

    setting: str
    asked: int
    got: int
    error: int
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.reason}\n    fix: {self.fix}"


class Effective(NamedTuple):
    """What is in force in a pool.

    Attributes
    ----------
    asked : Mapping[str, object]
        The arguments of the pool.
    size, limit : int
        Bytes the pool holds by now, and the most it may hold.
    prefault, lock : bool
        Whether pages are resident before they are handed out, and locked in memory.
    huge_pages : str or False
        ``"auto"``, ``"2MiB"``, ``"1GiB"`` or ``False``.
    degradations : tuple of Degradation
        Where less is in force than was asked, with the reason and the fix.
    objects : str
        ``"pool"`` while Python's own objects get their arenas from this pool, else ``"keep"``.
    """

    asked: Mapping[str, Any]
    size: int
    limit: int
    prefault: bool
    lock: bool
    huge_pages: str | bool
    degradations: tuple[Degradation, ...]
    objects: str = "keep"

    @property
    def as_asked(self) -> bool:
        """Whether everything that was asked for is in force."""
        return not self.degradations

    def __str__(self) -> str:
        return "\n".join([*columns(self._rows(), left=1, gap=4), *map(str, self.degradations)])

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        from .._support import html

        head, *rows = self._rows()
        return html.table(rows, head=head) + "".join(map(html.note, self.degradations))

    def _rows(self) -> list[list[str]]:
        rows = [["setting", "asked", "in force"]]
        for setting in ("size", "limit", "prefault", "lock", "huge_pages"):
            asked, had = self.asked[setting], getattr(self, setting)
            rows.append([setting, _shown(asked, asked), _shown(had, asked)])
        if self.objects == "pool":
            rows.append(["objects", "", "pool"])
        return rows


def _shown(value: object, asked: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int):
        return str(value)
    return format_size(value, isinstance(asked, int) and comes_out_in_decimals(asked))


def read_effective(asked: Mapping[str, Any], raw: "_core.RawEffective") -> Effective:
    """Name what the core answers."""
    size, limit, prefault, lock, huge_pages, degradations = raw
    most = max(asked["size"], size)
    decimal = comes_out_in_decimals(asked["limit"] or asked["size"])
    described = tuple(describe(failure, most, asked["huge_pages"], decimal) for failure in degradations)
    return Effective(asked, size, limit, prefault, lock, HUGE_PAGES[huge_pages], described)


def describe_refusal(
    name: str,
    size: int,
    stats: Any,
    limit: int,
    asked: int | None,
    more: str,
    *,
    error: int = 0,
    passed_on: bool = False,
    frozen: bool = False,
    cut: bool = False,
) -> str:
    """Say why a pool refused a request of `size` bytes, and what to do; in units as those of the limit `asked` for.

    `more`: how the pool is had with a higher limit. `error`: of the kernel, which gave the pool no more. `passed_on`:
    NumPy's allocator was asked, too. `cut`: the limit is what the address space of the process left of that asked for.
    """
    decimal = asked is not None and comes_out_in_decimals(asked)

    def shown(size: int) -> str:
        return format_size(size, decimal)

    blocks = "1 block" if stats.current_count == 1 else f"{stats.current_count:,} blocks"
    text = (
        f"pool {name!r} has no {shown(size)}: it holds {shown(stats.capacity_bytes)} of at most {shown(limit)},"
        f" {shown(stats.current_bytes)} of that in {blocks} in use;"
        f" its largest free piece is {shown(stats.largest_free_bytes)}."
    )
    if passed_on:
        return f"{text} NumPy's own allocator, which was asked instead, has none either: ask for less, or free memory"
    if frozen:
        return f"{text} It is frozen: let it learn what asks for this, or freeze it with on_miss='fallback'"
    if error:
        told = errno_text(error)
        return f"{text} The kernel gave it no more ({told}): {_FREE_MEMORY}"
    if cut:
        return f"{text} The address space of this process leaves it no more: ulimit -v unlimited"
    if size > limit:
        return f"{text} More than its limit never fits: {more}, or use when_full='fallback'"
    return f"{text} Drop arrays, {more}, or use when_full='fallback'"


def describe(failure: Failure, size: int, huge_pages: str | bool, decimal: bool = False) -> Degradation:
    """Say what stood in the way of one step of a pool of `size` bytes, and what to do about it."""
    step, error, asked, got = failure
    setting = STEPS[step]

    def shown(size: int) -> str:
        return format_size(size, decimal)

    if setting == "lock":
        reason = f"{shown(asked)} to lock, RLIMIT_MEMLOCK is {shown(got)} ({errno_text(error)})"
        fix = lift_memlock(asked)
    elif setting == "huge_pages":
        reason, fix = _explain_huge_pages(error, got, size, huge_pages)
    elif setting in ("commit", "prefault", "metadata"):
        reason = f"the kernel gave no memory for {shown(asked)} ({errno_text(error)})"
        fix = f"ask for less, {_FREE_MEMORY}"
    elif setting == "reserve":
        reason = f"no address space for {shown(asked)} ({errno_text(error)})"
        fix = "raise or remove the limit on address space: ulimit -v unlimited"
    else:
        reason = f"asked for {shown(asked)}, possible are {shown(got)} ({errno_text(error)})"
        fix = "ask for less, or raise limit="
    return Degradation(setting, asked, got, error, reason, fix)


def _explain_huge_pages(error: int, got: int, size: int, huge_pages: str | bool) -> tuple[str, str]:
    if huge_pages == "auto":
        reason = f"transparent huge pages in this kernel: {transparent_state()} ({errno_text(error)})"
        return reason, transparent_fix()
    page = 2 << 20 if huge_pages == "2MiB" else 1 << 30
    if error == errno_names.E2BIG:
        reason = f"the limit leaves no room for a whole page of {huge_pages}, so that memory comes in ordinary pages"
        return reason, f"give a limit that is a multiple of {huge_pages}"
    reason = f"the kernel has {format_size(got)} free in pages of {huge_pages} ({errno_text(error)})"
    return reason, explicit_fix(page, max(-(-size // page), 1))


def creation_error(failure: Failure, name: str, size: int, huge_pages: str | bool) -> Exception:
    """The exception for a pool that could not be made."""
    told = describe(failure, size, huge_pages, comes_out_in_decimals(size))
    text = f"pool {name!r} was not made; {told}"
    if told.setting == "size":
        return ValueError(text)
    if told.setting in ("lock", "huge_pages") or told.error != errno_names.ENOMEM:
        return OSError(told.error, text)
    return MemoryError(text)
