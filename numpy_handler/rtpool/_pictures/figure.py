"""A trace as a figure of matplotlib, which is imported here alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._support.sizes import format_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE, SHADE, MARK = "#1f5fa8", "#8a949e", "#b3261e"  # as the figures of sections


def draw(
    title: str,
    alive: tuple[Sequence[float], Sequence[int]] | None,
    peak: tuple[float, int],
    lanes: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    lines: Sequence[tuple[str, int, int]],
    foot: str,
) -> Figure:
    """Bytes alive over time with iterations and spans, and what lines asked for: name, bytes, of these temporaries."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plotting needs matplotlib: pip install rtpool[plot]") from None
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    if alive is not None:
        over_time, bars = figure.subplots(2, 1, height_ratios=(3, 2))
        _draw_time(over_time, alive, peak, lanes)
    else:
        bars = figure.subplots(1, 1)
    _draw_lines(bars, lines)
    figure.suptitle(_plain(title), fontsize=11)
    figure.supxlabel(_plain(foot), fontsize=7, x=0.01, ha="left")
    return figure


def _plain(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")


def _step(most: int) -> int:
    """A power of two of which there are some four to eight up to `most`."""
    return 1 << max(0, int(most).bit_length() - 3)


def _draw_time(axes: Any, alive: Any, peak: tuple[float, int], lanes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.stairs(alive[1], alive[0], color=LINE, fill=True, alpha=0.25)
    axes.stairs(alive[1], alive[0], color=LINE, lw=1.0, label="alive", baseline=None)
    axes.plot([peak[0]], [peak[1]], ls="", marker="v", color=MARK, label=f"peak, {format_size(peak[1])}")
    top = max([*alive[1], 1])
    for row, (name, stretches) in enumerate(lanes, 1):
        spans = [(begin, max(end - begin, 0.0)) for begin, end in stretches]
        bottom = -0.07 * top * row
        axes.broken_barh(spans[::2], (bottom, 0.05 * top), color=SHADE)
        axes.broken_barh(spans[1::2], (bottom, 0.05 * top), color=SHADE, alpha=0.5)
        axes.annotate(_plain(name), (0, bottom), fontsize=7, xytext=(2, 1), textcoords="offset points")
    axes.set_ylim(bottom=-0.07 * top * (len(lanes) + 0.5) if lanes else 0)
    axes.set_xlabel("s")
    axes.yaxis.set_major_locator(MultipleLocator(_step(top)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_size(int(value)) if value >= 0 else ""))
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", fontsize=8)


def _draw_lines(axes: Any, lines: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    names = [_plain(name) for name, _, _ in reversed(lines)]
    total, temporary = ([line[column] for line in reversed(lines)] for column in (1, 2))
    places = range(len(names))
    axes.barh(places, total, color=LINE, alpha=0.35, label="asked for")
    axes.barh(places, temporary, color=LINE, label="of these temporaries")
    axes.set_yticks(places, names, fontsize=8)
    axes.xaxis.set_major_locator(MultipleLocator(_step(max([*total, 1]))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_size(int(value))))
    axes.set_xlabel("bytes")
    axes.grid(alpha=0.25, axis="x")
    if names:
        axes.legend(loc="lower right", fontsize=8)
