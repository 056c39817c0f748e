"""What running a cell or a statement came to, as text."""

from __future__ import annotations

from collections.abc import Callable

from .._support.sizes import format_size
from .._trace.facts import seconds
from .._trace.figures import Usage
from .._trace.render import short
from .measure import Outcome, Turns


def _way(name: str, turns: Turns) -> str:
    text = f"{name:<16}{seconds(turns.median):>10}{turns.median_faults:>12,.0f} page faults"
    if len(turns.seconds) > 1:
        text += f"   ({seconds(min(turns.seconds))} to {seconds(max(turns.seconds))} in {len(turns.seconds)} turns)"
    return text


def where(usage: Usage, cell: str, name_of: Callable[[str], str]) -> str:
    """A line of the cell by its number, of another cell by that one's, any other by its file."""
    if not usage.file:
        return usage.function
    return f"line {usage.line}" if usage.file == cell else f"{name_of(usage.file) or short(usage.file)}:{usage.line}"


def text(outcome: Outcome, cell: str, top: int, name_of: Callable[[str], str] = lambda file: "") -> str:
    """The whole report. `cell`: the name under which the code was compiled; `name_of`: what a cell's file is called."""
    trace = outcome.trace
    sums = trace.analysis.sums
    total = {name: int(sums[name].sum()) for name in ("calls", "bytes", "temporaries", "temporary_bytes", "misses")}
    lines = []
    if outcome.plain is not None:
        lines.append(_way("NumPy as it is", outcome.plain))
    lines.append(_way("with the pool", outcome.pool))
    if outcome.plain is not None and outcome.pool.median > 0:
        lines[-1] += f"   {outcome.plain.median / outcome.pool.median:.2f} times as fast"
    if outcome.recorded:
        lines[-1] += "   (recorded, which takes a little longer)"
    if outcome.why_not:
        lines.append(outcome.why_not)
    lines.append(
        f"{total['calls']:,} arrays of {format_size(total['bytes'])} together, at most"
        f" {format_size(outcome.peak)} alive at once; {total['misses']:,} misses"
    )
    found = sorted((usage for usage in trace.by_line() if usage.temporaries), key=lambda usage: -usage.temporary_bytes)
    if found:
        lines += ["", f"temporaries: {total['temporaries']:,} of {format_size(total['temporary_bytes'])}"]
        for usage in found[:top]:
            size = format_size(usage.temporary_bytes)
            lines.append(f"{size:>12}{usage.temporaries:>8,}  {where(usage, cell, name_of):<22}  {usage.source[:80]}")
        if len(found) > top:
            lines.append(f"{'':>22}and {len(found) - top:,} lines more")
    return "\n".join(lines)
