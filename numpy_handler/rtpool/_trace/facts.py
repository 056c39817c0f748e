"""The figures of a trace that every report begins with."""

from __future__ import annotations

from typing import Any

from .._support.sizes import format_size


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def facts(trace: Any) -> list[tuple[str, str, str]]:
    """The trace's figures: name, value, and what it is."""
    sums = trace.analysis.sums
    total = {name: int(sums[name].sum()) for name in ("calls", "bytes", "temporaries", "temporary_bytes", "misses")}
    timed = bool(trace.file.chunks)
    facts = [
        ("arrays", f"{total['calls']:,}", f"{format_size(total['bytes'])} together"),
        ("asked for", format_size(total["bytes"]), "bytes of all arrays, summed"),
        ("peak", format_size(trace.analysis.peak_bytes), "most bytes alive at once"),
        ("misses", f"{total['misses']:,}", "requests that no free memory at hand served"),
        ("page faults", f"{trace.page_faults:,}", "of the whole process, meanwhile"),
        ("resident", format_size(trace.resident_bytes), "of the process"),
    ]
    if timed:
        facts.insert(0, ("time", seconds(trace.seconds), f"{trace.file.count:,} events"))
        facts.insert(
            3, ("temporaries", format_size(total["temporary_bytes"]),
                f"{total['temporaries']:,} arrays born and gone within one {trace.analysis.unit}"),
        )  # fmt: skip
    for usage in [usage for usage in trace.by_pool() if usage.shared][:3]:
        hint = f"most alive at once of {format_size(usage.bytes)} asked for here; other processes may hold them, too"
        facts.append((f"shared: {usage.name}", format_size(usage.peak_bytes), hint))
    if trace.iterations:
        work = trace.working_set()
        facts.append(("iterations", f"{trace.iterations:,}", ""))
        facts.append(
            ("working set", format_size(work.median),
             f"distinct memory of an iteration; fits {work.fits} (level 2 {format_size(work.level2)},"
             f" level 3 {format_size(work.level3)})"),
        )  # fmt: skip
    return facts
