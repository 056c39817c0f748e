"""Where the page faults of a section came from: what the binding knows of each, summed up, and what was not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import _core

FaultKind = Literal["pool", "objects", "libc", "stack", "file", "other"]


@dataclass(frozen=True, slots=True)
class FaultOrigin:
    """Page faults that happened at one place, by one function.

    Attributes
    ----------
    kind : {"pool", "objects", "libc", "stack", "file", "other"}
        Memory of a pool, its tables included; arenas of Python's objects; libc's heaps and the blocks it maps; stacks;
        code and data of libraries, mapped files and shared memory; all else.
    where : str
        Which: the pool and the kind of block, the library and whether it is code or data, the mapping's name.
    count : int
    first : int or None
        The iteration with the first one, as its ``tick.index``. Faults in the wait before an iteration count as its
        own, so this is one more than the last index for what came after the last iteration. `None` where the kernel
        did not tell.
    function : str
        What touched the memory, and its library; the library and the offset where it has no name. Empty where the
        kernel did not tell.
    """

    kind: FaultKind
    where: str
    count: int
    first: int | None
    function: str = ""

    def __str__(self) -> str:
        by = f", by {self.function}" if self.function else ""
        since = f"; first in iteration {self.first:,}" if self.first is not None else ""
        return f"{self.count:,} x {self.kind}: {self.where}{by}{since}"


# What keeps a fault out of the next run, by what stands in `where`; the first that fits.
_REMEDIES: dict[FaultKind, tuple[tuple[str, str], ...]] = {
    "pool": (("", "give the pool prefault=True, and the section a warm-up that sees the same sizes"),),
    "objects": (
        ("frames of Python's calls", "let the warm-up call as deep as the loop does"),
        ("free-threaded", "start it with MIMALLOC_PURGE_DELAY=-1 (`python -m rtpool run` does): objects' memory stays"),
        ("Python's own", "let the pool serve objects (objects='pool'), and the warm-up make as many as the loop does"),
        ("", "let the warm-up make as many objects as the loop does"),
    ),
    "libc": (
        ("mapping of its own", "malloc='tune' keeps such blocks in libc's heap, where libc is glibc"),
        ("", "let the warm-up do all that the loop does: libc keeps what it has had"),
    ),
    "stack": (
        ("this thread", "let the warm-up call as deep as the loop does, or give the thread a smaller stack"),
        ("", "start threads before the section, and keep them (a ThreadPoolExecutor)"),
    ),
    "file": (
        ("mapped meanwhile", "import modules, and open and read files, before the section"),
        (": code", "import and call it once before the section, or lock_process=True"),
        (": data", "import and call it once before the section, or lock_process=True"),
        ("", "read files that are mapped once before the section, or lock_process=True"),
    ),
    "other": (
        ("not seen: ", ""),  # says it itself
        ("", "let the warm-up touch it, or lock_process=True"),
    ),
}


def remedies(origins: tuple[FaultOrigin, ...]) -> list[str]:
    """Say what to do about them, each thing once, for most faults first."""
    found: dict[str, None] = {}
    for origin in origins:
        found[next(remedy for part, remedy in _REMEDIES[origin.kind] if part in origin.where)] = None
    return [remedy for remedy in found if remedy]


def read_origins(raw: _core.RawFaults, total: int, refused: str) -> tuple[FaultOrigin, ...]:
    """Sum up what a loop saw, most faults first.

    `total` have been counted; `refused` says why nothing was watched, ``""`` if it was.
    """
    rows, overruns, throttled, unplaced, scope = raw
    sums: dict[tuple[FaultKind, str, str], tuple[int, int]] = {}
    for kind, where, function, count, first in rows:
        before = sums.get((kind, where, function), (0, first))
        sums[kind, where, function] = (before[0] + count, min(before[1], first))
    found = [
        FaultOrigin(kind, where, count, first, function) for (kind, where, function), (count, first) in sums.items()
    ]
    # The kernel tells a fault that it has to begin anew twice and counts it once: more may be seen than counted.
    unseen = total - sum(origin.count for origin in found)
    if unseen > 0:
        reasons = _why_unseen(overruns, throttled, unplaced, scope, refused)
        found.append(FaultOrigin("other", f"not seen: {reasons}", unseen, None))
    return tuple(sorted(found, key=lambda origin: -origin.count))


def _why_unseen(overruns: int, throttled: int, unplaced: int, scope: str, refused: str) -> str:
    if refused:
        return refused
    if scope == "none":
        return "they came before the loop, which is where the watch begins"
    reasons = []
    if overruns:
        reasons.append(f"the kernel's ring ran over {overruns:,} times, with more faults in an iteration than it holds")
    if throttled:
        reasons.append(f"the kernel stopped the watch {throttled:,} times (sysctl kernel.perf_event_max_sample_rate)")
    if unplaced:
        reasons.append(f"{unplaced:,} by more different instructions than there is room for")
    if scope == "user":
        reasons.append("the kernel's own in calls of this thread (sysctl -w kernel.perf_event_paranoid=1 shows them)")
    return "; ".join(reasons) or "the kernel made memory resident itself, as for mlock and MADV_POPULATE_WRITE"
