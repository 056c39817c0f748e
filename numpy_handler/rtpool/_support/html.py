"""Tables as HTML, for notebooks: `_repr_html_` of what users hold. All text is escaped; colours are the page's own."""

import html
from collections.abc import Iterable, Sequence

# Inherited colours do for light and dark pages; lines are the text's colour, thinned.
_STYLE = "border-collapse:collapse;margin:0.3em 0;color:inherit;background:transparent"
_CELL = "padding:0.15em 0.8em;border:0;border-top:1px solid rgba(127,127,127,.35);white-space:pre-wrap"


def escape(value: object) -> str:
    """Text that is safe between tags and in quoted attributes."""
    return html.escape(str(value), quote=True)


def heading(text: object) -> str:
    """A line in bold above a table."""
    return f'<div style="margin-top:0.4em;font-weight:600">{escape(text)}</div>'


def note(text: object) -> str:
    """Smaller text below a table; lines stay lines."""
    return f'<div style="font-size:85%;opacity:0.8;white-space:pre-wrap">{escape(text)}</div>'


def table(rows: Iterable[Sequence[object]], *, head: Sequence[object] = (), left: int = 1) -> str:
    """Lay cells out as a table, the first `left` columns flush left and the others flush right."""
    parts = [f'<table style="{_STYLE}">']
    if head:
        parts.append("<thead><tr>" + _cells(head, left, "th") + "</tr></thead>")
    parts.append("<tbody>")
    parts += ["<tr>" + _cells(row, left, "td") + "</tr>" for row in rows]
    return "".join([*parts, "</tbody></table>"])


def _cells(row: Sequence[object], left: int, tag: str) -> str:
    sides = ("left" if number < left else "right" for number in range(len(row)))
    return "".join(
        f'<{tag} style="{_CELL};text-align:{side}">{escape(cell)}</{tag}>'
        for cell, side in zip(row, sides, strict=True)
    )
