"""Traces as text, for a terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .._support.sizes import format_size
from .facts import facts, seconds
from .figures import BYPASS, FORKED, Difference, PoolUsage, Usage


def short(file: str) -> str:
    """A path, as seen from here if that is shorter."""
    try:
        near = os.path.relpath(file)
    except ValueError:
        return file
    return near if len(near) < len(file) else file


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def foot(trace: Any) -> str:
    """What every report ends with: what is not seen, and how large the process was."""
    return f"process: {format_size(trace.resident_bytes)} resident at most, {trace.page_faults:,} page faults; {BYPASS}"


def summary(trace: Any) -> str:
    """The whole trace in some lines."""
    file, analysis = trace.file, trace.analysis
    sums = analysis.sums
    total = {name: int(sums[name].sum()) for name in sums}
    meta = file.meta
    program = " ".join(map(str, meta.get("arguments", []))) if isinstance(meta.get("arguments"), list) else ""
    lines = [
        f"trace of {program or 'a process'}: {file.count:,} events in {seconds(trace.seconds)},"
        f" {len(file.threads)} threads, {trace.iterations:,} iterations",
        f"  arrays       {total['calls']:,} of {format_size(total['bytes'])} together;"
        f" {analysis.alive_before:,} were alive before",
        f"  temporaries  {total['temporaries']:,} of {format_size(total['temporary_bytes'])}, born and gone within"
        f" one {analysis.unit}",
        f"  peak         {format_size(analysis.peak_bytes)}",
        f"  misses       {total['misses']:,}; of these passed on {total['fallbacks']:,}, not served"
        f" {total['failures']:,}",
        f"  by others    {total['remote_frees']:,} freed by another thread",
    ]
    if trace.iterations:
        work = trace.working_set()
        lines.append(
            f"  working set  {format_size(work.median)} an iteration, {format_size(work.largest)} at most; fits"
            f" {work.fits} (level 2 {format_size(work.level2)}, level 3 {format_size(work.level3)})"
        )
    handed = analysis.handed_out
    lines.append(
        f"  handed out   warm from level 2 {_percent(handed['level2'], total['bytes'])}, level 3"
        f" {_percent(handed['level3'], total['bytes'])}, memory {_percent(handed['memory'], total['bytes'])}, new"
        f" {_percent(handed['new'], total['bytes'])}"
    )
    if not file.complete:
        lines.append("  cut off      the process ended before the recording did: its last events are missing")
    if file.lost or file.end.get("lost_by_limit"):
        lines.append(f"  LOST         {file.lost:,} events, and {file.end.get('lost_by_limit', 0):,} beyond the limit")
    forked = file.end.get("forked")
    if isinstance(forked, int) and forked:
        lines.append(f"  forked       {forked:,} children: {FORKED[bool(meta.get('children'))]}")
    pools = trace.by_pool()
    if len(pools) > 1 or any(usage.shared for usage in pools):
        lines += ["", "pools:", *pool_lines(pools)]
    lines += ["", "most bytes:"]
    lines += usage_lines(trace.by_line()[:5], analysis.peak_bytes)
    return "\n".join([*lines, "", foot(trace)])


def summary_html(trace: Any) -> str:
    """The whole trace for a notebook: its figures, and the lines that asked for most."""
    from .._support import html

    peak = trace.analysis.peak_bytes
    rows = [
        (
            usage.source[:100] or usage.function,
            f"{short(usage.file)}:{usage.line}" if usage.file else "",
            format_size(usage.bytes), f"{usage.calls:,}", f"{usage.temporaries:,}", _percent(usage.peak_bytes, peak),
            f"{usage.misses:,}",
        )
        for usage in trace.by_line()[:8]
    ]  # fmt: skip
    head = ("most bytes", "where", "bytes", "arrays", "temporaries", "of the peak", "misses")
    return "".join(
        [
            html.heading(repr(trace)[1:-1]),
            html.table((name, value, hint) for name, value, hint in facts(trace)),
            html.table(rows, head=head, left=2),
            html.note(foot(trace)),
        ]
    )


def pool_lines(pools: Sequence[PoolUsage]) -> list[str]:
    """A table of pools."""
    rows = ["       bytes     calls          peak  misses  pool"]
    for usage in pools:
        rows.append(
            f"{format_size(usage.bytes):>12} {usage.calls:>9,} {format_size(usage.peak_bytes):>13} {usage.misses:>7,}"
            f"  {usage.name}{' (shared with other processes)' if usage.shared else ''}"
        )
    return rows


def usage_lines(found: Sequence[Usage], peak: int, *, expressions: bool = False) -> list[str]:
    """A table of lines or expressions."""
    rows = ["       bytes     calls  temporaries  peak  lifetime  misses  where"]
    for usage in found:
        where = f"{short(usage.file)}:{usage.line} in {usage.function}" if usage.file else usage.function
        rows.append(
            f"{format_size(usage.bytes):>12} {usage.calls:>9,} {usage.temporaries:>12,} "
            f"{_percent(usage.peak_bytes, peak):>5} {seconds(usage.lifetime):>9} {usage.misses:>7,}  {where}"
        )
        if usage.source:
            rows.append(f"{'':>60}  {usage.source[:100]}")
    return rows


def miss_lines(trace: Any) -> list[str]:
    """Misses by size and reason."""
    rows = ["        size    misses     first  more alive  given back  refused"]
    for miss in trace.misses():
        rows.append(
            f"{format_size(miss.granted):>12} {miss.total:>9,} {miss.first:>9,} {miss.more_alive:>11,}"
            f" {miss.given_back:>11,} {miss.refused:>8,}{f'  shared: {miss.shared}' if miss.shared else ''}"
        )
    return rows if len(rows) > 1 else ["no misses"]


def difference_lines(found: Sequence[Difference]) -> list[str]:
    """Lines of two traces, and what changed."""
    rows = ["       bytes     calls  temporaries  misses  where"]
    for difference in found:
        usage = difference.after or difference.before
        assert usage is not None
        change = {name: difference.change(name) for name in ("bytes", "calls", "temporaries", "misses")}
        if not any(change.values()):
            continue
        size = ("+" if change["bytes"] > 0 else "-" if change["bytes"] < 0 else "") + format_size(abs(change["bytes"]))
        mark = "" if difference.before and difference.after else "  (new)" if difference.after else "  (gone)"
        rows.append(
            f"{size:>12} {change['calls']:>+9,} {change['temporaries']:>+12,} {change['misses']:>+7,}"
            f"  {short(usage.file)}:{usage.line} in {usage.function}{mark}"
        )
    return rows if len(rows) > 1 else ["no difference"]
