"""Snapshots as text and as plain values."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from .._support.sizes import format_size
from .._support.table import columns
from .page import PoolFigures, SectionFigures
from .processes import Snapshot

POOL_HEAD = ("pool", "held", "alive", "peak", "arrays/s", "hits", "misses", "misses/s", "fallbacks", "kernel calls", "")
_COMMAND = 60


class View(NamedTuple):
    """A snapshot and the one before it, of the same process; `None`: there is none yet."""

    now: Snapshot
    before: Snapshot | None


def head(view: View) -> str:
    """A line of the process."""
    kernel = view.now.kernel
    command = kernel.command if len(kernel.command) <= _COMMAND else kernel.command[: _COMMAND - 3] + "..."
    faults = _faults_a_second(view)
    parts = [
        f"{view.now.process}  {command or '?'}",
        f"resident {format_size(kernel.resident_bytes)}",
        f"page faults {kernel.minor_faults + kernel.major_faults:,}"
        + ("" if faults is None else f" ({faults:,.0f}/s)"),
        f"threads {kernel.threads}",
    ]
    if not view.now.answered:
        parts.append("does not answer (stopped?)" if view.now.page else "has not answered (stopped?)")
    return "  ".join(parts)


def pool_row(view: View, pool: PoolFigures) -> tuple[str, ...]:
    """A pool's cells, as `POOL_HEAD`."""
    stats = pool.stats
    made, missed = _rate(view, pool, "total_count"), _rate(view, pool, "misses")
    marks = [word for word, there in (("frozen", pool.frozen), ("shared", pool.shared), ("debug", pool.debug)) if there]
    return (
        pool.name or "?",
        format_size(stats["capacity_bytes"]),
        format_size(stats["current_bytes"]),
        format_size(stats["peak_bytes"]),
        "-" if made is None else f"{made:,.0f}",
        f"{stats['hits']:,}",
        f"{stats['misses']:,}",
        "-" if missed is None else f"{missed:,.0f}",
        f"{stats['fallbacks']:,}",
        f"{stats['kernel_calls']:,}",
        " ".join(marks),
    )


def section_line(view: View, section: SectionFigures) -> str:
    """A section in a line."""
    page = view.now.page
    assert page is not None
    every = f"every {_span(section.period)}" if section.period else "as fast as it goes"
    text = (
        f"section of thread {section.thread}: {every}, {section.iterations:,} iterations, {section.overruns:,} overruns"
    )
    if section.skipped:
        text += f", {section.skipped:,} left out"
    if section.last_instant:
        ago = max(page.instant - section.last_instant, 0)
        text += (
            f"; the last overrun: iteration {section.last_index:,}, which took {_span(section.last_duration)}, "
            f"{_span(ago)} ago"
        )
    return text


def notes(view: View) -> list[str]:
    """What is there and not shown."""
    page = view.now.page
    if page is None:
        return []
    more = [(page.pools_there - len(page.pools), "pools"), (page.sections_there - len(page.sections), "sections")]
    return [f"{count:,} more {what}" for count, what in more if count > 0]


def text(views: list[View], hidden: int = 0) -> str:
    """All processes as text."""
    blocks = []
    for view in views:
        lines = [head(view)]
        page = view.now.page
        if page is not None and page.pools:
            rows = [POOL_HEAD, *(pool_row(view, pool) for pool in page.pools)]
            lines += ["  " + line for line in columns(rows, left=1)]
        if page is not None:
            lines += ["  " + section_line(view, section) for section in page.sections]
        lines += ["  " + line for line in notes(view)]
        blocks.append("\n".join(lines))
    return "\n\n".join(block for block in (*blocks, rest(views, hidden)) if block)


def rest(views: list[View], hidden: int) -> str:
    """What is to be said below all processes; empty: nothing."""
    lines = [] if views else ["no process shows itself: start one with RTPOOL_LIVE=1"]
    if hidden:
        lines.append(f"{hidden:,} process{'es' if hidden > 1 else ''} of others may not be looked at")
    return "\n".join(lines)


def as_dict(view: View) -> dict[str, Any]:
    """A process as plain values; rates are a second's, `None` at the first look."""
    now = view.now
    pools = []
    for pool in now.page.pools if now.page else ():
        made = {
            name: _rate(view, pool, name) for name in ("total_count", "hits", "misses", "fallbacks", "kernel_calls")
        }
        pools.append(pool._asdict() | {"rates": made})
    return {
        "process": now.process,
        "answered": now.answered,
        **now.kernel._asdict(),
        "faults_a_second": _faults_a_second(view),
        "pools": pools,
        "pools_there": now.page.pools_there if now.page else 0,
        "sections": [section._asdict() for section in now.page.sections] if now.page else [],
        "time": time.time(),
    }


def _rate(view: View, pool: PoolFigures, name: str) -> float | None:
    """How much a counter of a pool grew in a second, between two answers."""
    before, page = view.before, view.now.page
    if before is None or before.page is None or page is None or page.instant <= before.page.instant:
        return None
    for other in before.page.pools:
        if (other.id, other.shared, other.name) == (pool.id, pool.shared, pool.name):
            return max(pool.stats[name] - other.stats[name], 0) * 1e9 / (page.instant - before.page.instant)
    return None


def _faults_a_second(view: View) -> float | None:
    before, now = view.before, view.now
    if before is None or now.taken <= before.taken:
        return None
    new = now.kernel.minor_faults + now.kernel.major_faults - before.kernel.minor_faults - before.kernel.major_faults
    return max(new, 0) / (now.taken - before.taken)


def _span(nanoseconds: int) -> str:
    for limit, scale, unit in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if nanoseconds < limit:
            return f"{nanoseconds / scale:.3g} {unit}"
    return f"{nanoseconds / 1e9:.3g} s" if nanoseconds < 1e12 else f"{nanoseconds / 6e10:,.0f} min"
