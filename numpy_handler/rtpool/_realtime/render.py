"""Reports as text, HTML and cyclictest's histogram lines."""

from __future__ import annotations

import html as markup

from .._support.sizes import format_size
from .._support.table import columns
from .faults import remedies
from .record import Distribution, Record, SlowIteration

MOST_BINS = 10_000
SHOWN_SLOWEST = 8
SHOWN_DEVIATIONS = 8
SHOWN_ORIGINS = 5
SHOWN_MODULES = 6

_COLUMNS = ("min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max")


def span(seconds: float) -> str:
    """A span of time with three digits or so, in the unit that suits it."""
    if seconds == 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _values(of: Distribution) -> list[float]:
    return [of.min, of.mean, *(of.percentile(q) for q in (50, 90, 99, 99.9, 99.99)), of.max]


def _times(report: Record) -> list[tuple[str, list[str]]]:
    rows = [("work", [span(value) for value in _values(report.duration)])]
    if report.period is not None:
        rows.append(("late", [span(value) for value in _values(report.lateness)]))
    return rows


def _headline(report: Record) -> str:
    if report.warmup_left:
        left = f"{report.warmup_left:,} iteration{'s' if report.warmup_left > 1 else ''}"
        return f"nothing was measured: the loop ended {left} before its warm-up was complete"
    ran = f"{report.iterations:,} iterations in {span(report.elapsed)}"
    if report.period is None:
        return f"longest iteration {span(report.max_duration)}; {ran}"
    skipped = f" ({report.skipped:,} periods skipped)" if report.skipped else ""
    return (
        f"overruns {report.overruns:,}{skipped}; longest iteration {span(report.max_duration)}"
        f" of {span(report.period)};"
        f" latest start {span(report.max_lateness)}; {ran}"
    )


def _events(report: Record) -> list[tuple[str, str]]:
    faulted = report.minor_faults + report.major_faults > 0
    rows = [
        ("page faults", f"{report.minor_faults:,} minor, {report.major_faults:,} major" if faulted else "none"),
        ("switches", f"{report.voluntary_switches:,} voluntary, {report.involuntary_switches:,} involuntary"),
        ("pool", f"{report.kernel_calls:,} kernel calls, {report.misses:,} misses"
                 f"{f', {format_size(report.zeroed_ahead)} zeroed ahead' if report.zeroed_ahead else ''}"),
        ("objects", str(report.objects)),
        ("collections", f"{report.collections:,}"),
    ]  # fmt: skip
    if report.imported:
        rows.append(("imported", f"{_some(report.imported)}: import what the loop needs before the section"))
    if report.interrupted:
        rows.append(("ended", "by Ctrl-C"))
    return rows


def _some(names: tuple[str, ...]) -> str:
    left = len(names) - SHOWN_MODULES
    return ", ".join(names[:SHOWN_MODULES]) + (f" and {left:,} more" if left > 0 else "")


def _deviations(report: Record) -> list[str]:
    worst = sorted(report.deviations.items(), key=lambda one: -one[1])[:SHOWN_DEVIATIONS]
    lines = [f"{count:,} x {size:,} B ({format_size(size)})" for size, count in worst]
    if len(report.deviations) > len(worst):
        lines.append(f"and {len(report.deviations) - len(worst)} other sizes")
    return lines


def origins(report: Record, most: int = SHOWN_ORIGINS) -> list[str]:
    """Where most page faults came from, a line each."""
    lines = [str(origin) for origin in report.fault_origins[:most]]
    left = report.fault_origins[most:]
    if left:
        lines.append(f"{sum(origin.count for origin in left):,} x from {len(left):,} other places")
    return lines


def _slow_cells(one: SlowIteration) -> list[str]:
    covers = "" if one.span == 1 else f"over {one.span:,} iterations"
    return [
        f"{one.index:,}{'!' if one.overrun else ''}", f"{one.start:.6f}", span(one.duration), span(one.lateness),
        f"{one.minor_faults:,}+{one.major_faults:,}", f"{one.voluntary_switches:,}+{one.involuntary_switches:,}",
        f"{one.collections:,}", covers,
    ]  # fmt: skip


_SLOW_HEAD = ["iteration", "at s", "work", "late", "faults", "switches", "gc", ""]


def text(report: Record) -> str:
    """The report for a terminal; what matters most comes first."""
    lines = [_headline(report), ""]
    lines += columns([["", *_COLUMNS], *([name, *cells] for name, cells in _times(report))])
    lines.append("")
    lines += [f"{name:<12} {value}" for name, value in _events(report)]
    if report.fault_origins:
        lines += ["", "page faults came from:"]
        lines += [f"  {line}" for line in origins(report)]
        lines += [f"  so: {line}" for line in remedies(report.fault_origins[:SHOWN_ORIGINS])]
    if report.deviations:
        lines += ["", "not in the plan (learn again, or let the warm-up see them):"]
        lines += [f"  {line}" for line in _deviations(report)]
    if report.degradations:
        lines += ["", "asked for and not in force:"]
        lines += [f"  {line}" for one in report.degradations for line in str(one).splitlines()]
    if report.slowest:
        lines += ["", "slowest iterations (faults minor+major, switches voluntary+involuntary, ! overrun):"]
        lines += columns([_SLOW_HEAD, *map(_slow_cells, report.slowest[:SHOWN_SLOWEST])])
    lines.append("")
    lines += [f"{name:<12} {value}" for name, value in report.environment.lines()]
    return "\n".join(lines)


def html(report: Record) -> str:
    """The report for a notebook."""

    def row(cells: list[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{markup.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    def table(head: list[str], rows: list[list[str]]) -> str:
        return f"<table><thead>{row(head, 'th')}</thead><tbody>{''.join(map(row, rows))}</tbody></table>"

    parts = [f"<p><b>{markup.escape(_headline(report))}</b></p>"]
    parts.append(table(["", *_COLUMNS], [[name, *cells] for name, cells in _times(report)]))
    parts.append(table(["", ""], [list(pair) for pair in _events(report)]))
    if report.fault_origins:
        rows = [
            [f"{one.count:,}", one.kind, one.where, one.function, "" if one.first is None else f"{one.first:,}"]
            for one in report.fault_origins
        ]
        parts.append(table(["page faults", "kind", "where", "by", "first in iteration"], rows))
    if report.deviations:
        parts.append(table(["not in the plan"], [[line] for line in _deviations(report)]))
    if report.degradations:
        parts.append(table(["not in force", "why", "fix"], [[d.setting, d.reason, d.fix] for d in report.degradations]))
    if report.slowest:
        slow = table(_SLOW_HEAD, [_slow_cells(one) for one in report.slowest])
        parts.append(f"<details><summary>slowest iterations</summary>{slow}</details>")
    machine = table(["", ""], [list(pair) for pair in report.environment.lines()])
    parts.append(f"<details><summary>environment</summary>{machine}</details>")
    return f"<div>{''.join(parts)}</div>"


def cyclictest(of: Distribution, bins: int | None) -> str:
    """Histogram lines as ``cyclictest -h`` prints them for one thread, with its comments."""
    if bins is not None and (type(bins) is not int or bins < 1):
        raise ValueError(f"bins must be a whole number of microseconds, at least 1, not {bins!r}")
    count = min(int(of.max * 1e6) + 1, MOST_BINS) if bins is None else bins
    lines_of, overflows = [0] * count, 0
    for low, high, number in of.histogram():
        # A bucket is counted where its middle lies; the last one is never beyond the longest value.
        middle = min((low + high) / 2, of.max)
        microsecond = int(middle * 1e6)
        if microsecond < count:
            lines_of[microsecond] += number
        else:
            overflows += number
    lines = ["# Histogram"]
    lines += [f"{microsecond:06d} {number:06d}" for microsecond, number in enumerate(lines_of)]
    lines += [
        f"# Total: {of.count - overflows:09d}",
        f"# Min Latencies: {int(of.min * 1e6):05d}",
        f"# Avg Latencies: {int(of.mean * 1e6):05d}",
        f"# Max Latencies: {int(of.max * 1e6):05d}",
        f"# Histogram Overflows: {overflows:05d}",
    ]
    return "\n".join(lines) + "\n"
