"""The picture of a report. Needs matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .record import Distribution, Record
from .render import span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORK, LATE, LIMIT, FAULT = "#1f5fa8", "#c8791b", "#b3261e", "#6a3d9a"
BINS_PER_DECADE = 40
FLOOR = 1e-8  # seconds; where a logarithmic axis begins for spans of 0


def draw(report: Record) -> Figure:
    """Duration and lateness over time, and how often each was how long."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plotting needs matplotlib: pip install rtpool[plot]") from None
    if not report.iterations:
        raise ValueError("there are no iterations to plot")
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    over_time, histogram = figure.subplots(2, 1)
    _draw_timeline(over_time, report)
    _draw_histogram(histogram, report)
    _draw_origins(figure, over_time, report)
    figure.suptitle(_title(report), fontsize=11)
    return figure


def _title(report: Record) -> str:
    faults = f"{report.minor_faults:,} faults, {report.misses:,} misses"
    paced = f"{report.overruns:,} overruns, " if report.period is not None else ""
    return f"{report.iterations:,} iterations: {paced}longest {span(report.max_duration)}, {faults}"


def _draw_origins(figure: Figure, over_time: Any, report: Record) -> None:
    """Name where most faults came from below, and mark the iterations in which each began."""
    from .render import origins

    if not report.fault_origins:
        return
    began = [origin.first for origin in report.fault_origins if origin.first is not None]
    if began:
        at = [min(first + 0.5, report.iterations) / report.iterations * report.elapsed for first in began]
        zeros = [0.0] * len(at)
        over_time.plot(at, zeros, ls="", marker="^", color=FAULT, clip_on=False, label="first page faults of a place")
        over_time.legend(loc="upper right", fontsize=8)
    figure.supxlabel("\n".join(["page faults came from:", *origins(report)]), fontsize=7, x=0.01, ha="left")


def _draw_timeline(axes: Any, report: Record) -> None:
    timeline = report.timeline
    # A stretch stands at its share of the whole time, which is its exact time in a paced loop.
    done, at = 0, []
    for stretch in timeline:
        at.append((done + stretch.count / 2) / report.iterations * report.elapsed)
        done += stretch.count
    many = timeline[0].count > 1
    suffix = f", longest of each {timeline[0].count:,} iterations" if many else ""
    axes.plot(at, [stretch.max * 1e3 for stretch in timeline], color=WORK, lw=0.9, label=f"work{suffix}")
    if many:
        axes.plot(at, [stretch.mean * 1e3 for stretch in timeline], color=WORK, lw=0.9, alpha=0.45, label="work, mean")
    if report.period is not None:
        axes.plot(at, [stretch.max_lateness * 1e3 for stretch in timeline], color=LATE, lw=0.9, label=f"late{suffix}")
        # A deadline far above everything would press the curves to the bottom.
        if max(stretch.max for stretch in timeline) > report.period / 4:
            axes.axhline(report.period * 1e3, color=LIMIT, lw=0.9, ls="--", label="period")
    late = [(one.start, one.duration * 1e3) for one in report.slowest if one.overrun]
    if late:
        axes.plot(*zip(*late, strict=True), ls="", marker="x", color=LIMIT, label="overruns (among the slowest 32)")
    axes.set_xlabel("time since the first measured iteration [s]")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", fontsize=8)


def _draw_histogram(axes: Any, report: Record) -> None:
    shown = [("work", report.duration, WORK)]
    if report.period is not None:
        shown.append(("late", report.lateness, LATE))
    for name, of, color in shown:
        edges, counts = _rebin(of)
        axes.stairs(counts, [edge * 1e6 for edge in edges], color=color, fill=True, alpha=0.35)
        axes.stairs(counts, [edge * 1e6 for edge in edges], color=color, lw=0.9, label=name)
        for q, style in ((50, ":"), (99.9, "--")):
            axes.axvline(max(of.percentile(q), FLOOR) * 1e6, color=color, lw=0.8, ls=style, label=f"{name} p{q:g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlabel("us")
    axes.set_ylabel("iterations")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", fontsize=8)


def _rebin(of: Distribution) -> tuple[list[float], list[int]]:
    """Buckets wide enough for the eye: equal steps of the logarithm."""
    low = math.floor(math.log10(max(of.min, FLOOR)) * BINS_PER_DECADE)
    high = math.floor(math.log10(max(of.max, FLOOR)) * BINS_PER_DECADE) + 1
    counts = [0] * (high - low)
    for lower, upper, number in of.histogram():
        middle = max(min((lower + upper) / 2, of.max), of.min, FLOOR)
        position = math.floor(math.log10(middle) * BINS_PER_DECADE) - low
        counts[min(max(position, 0), len(counts) - 1)] += number
    return [10 ** ((low + i) / BINS_PER_DECADE) for i in range(len(counts) + 1)], counts
