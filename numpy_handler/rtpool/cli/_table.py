"""Figures as text."""

from __future__ import annotations

from collections.abc import Sequence

from ._measure import Timing


def seconds(value: float) -> str:
    """Format a duration with three digits and a unit that fits."""
    for limit, scale, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * scale:.3g} {unit}" if value * scale < 100 else f"{value * scale:.0f} {unit}"
    return f"{value:.3g} s"


def faults(value: float | None) -> str:
    """Format page faults per iteration; a fraction is shown as one, never rounded to nothing."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def timings(title: str, results: Sequence[Timing], reference: str) -> str:
    """Format one comparison: a title line, then a line for each way."""
    head = ("time", f"vs {reference}", "faults/iter", "slowest")
    lines = [f"{title:<52}{head[0]:>10}{head[1]:>10}{head[2]:>13}{head[3]:>11}"]
    for timing in results:
        cells = (seconds(timing.median), f"{timing.ratio:.2f}x", faults(timing.faults), seconds(timing.slowest))
        lines.append(f"  {timing.name:<50}{cells[0]:>10}{cells[1]:>10}{cells[2]:>13}{cells[3]:>11}")
    return "\n".join(lines)
