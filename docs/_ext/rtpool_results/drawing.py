"""Figures as SVG that stands in the page and takes its colours from the theme, light or dark.

Matplotlib draws with colours that stand for names; in the SVG they become variables of the style sheet
(`docs/_static/rtpool.css`), text in the page's own font.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What stands for which variable. Any colours do that nothing else uses.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
COLORS = {
    "numpy": "#040404",
    "python": "#040404",
    "glibc": "#040404",
    "tuned": "#050505",
    "jemalloc": "#060606",
    "tcmalloc": "#070707",
    "mimalloc": "#080808",
    "numpy-allocator": "#090909",
    "rtpool": "#0a0a0a",
    "rtpool-active": "#0a0a0a",
    "out": "#0b0b0b",
    "numba": "#0c0c0c",
}
MARKERS = {"numpy": "s", "python": "s", "glibc": "s", "tuned": "P", "jemalloc": "v", "tcmalloc": "^", "mimalloc": "D",
           "rtpool": "o", "rtpool-active": "o", "out": "|", "numba": "X"}  # fmt: skip
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{color: name for name, color in reversed(COLORS.items())}}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}
WIDTH = 5.2  # inches, of every figure: narrow, so that it can be read on a phone


def new_figure(height: float) -> tuple[Figure, Any]:
    """A figure with one pair of axes, to be drawn and given to `to_svg` under `settings`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def settings() -> Any:
    """What figures are drawn and written under."""
    return matplotlib.rc_context(_SETTINGS)


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Write a figure as an `<svg>` element; `name` keeps its ids apart from those of others on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)\s*width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)\s*height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--rt-{variable})")
    text = re.sub(r"font: ([^;\"]*?)'?DejaVu Sans'?[^;\"]*", r"font: \1var(--pst-font-family-base)", text)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
