"""Snapshots on a terminal that is drawn anew. Needs rich: ``pip install rtpool[live]``."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import render


class Screen:
    """The terminal while it shows processes: ``with Screen() as screen: screen.show(views, hidden)``."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console, auto_refresh=False, screen=True)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, views: list[render.View], hidden: int) -> None:
        """Draw what is there now."""
        self._live.update(picture(views, hidden), refresh=True)


def picture(views: list[render.View], hidden: int) -> Group:
    """All processes, a table each."""
    parts: list[Table | Text] = []
    for view in views:
        parts.append(Text(render.head(view), style="bold" if view.now.answered else "dim"))
        page = view.now.page
        if page is not None and page.pools:
            table = Table(box=None, pad_edge=False, padding=(0, 1))
            for number, title in enumerate(render.POOL_HEAD):
                table.add_column(title, justify="left" if number == 0 else "right", no_wrap=True)
            for pool in page.pools:
                cells = [Text(cell) for cell in render.pool_row(view, pool)]
                if cells[7].plain not in ("-", "0"):
                    cells[7].stylize("yellow")
                table.add_row(*cells)
            parts.append(table)
        for section in page.sections if page is not None else ():
            parts.append(Text(render.section_line(view, section), style="red" if section.overruns else ""))
        parts += [Text(line, style="dim") for line in render.notes(view)]
        parts.append(Text(""))
    rest = render.rest(views, hidden)
    if rest:
        parts.append(Text(rest, style="dim"))
    return Group(*parts)
