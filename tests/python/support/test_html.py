"""What notebooks show: tables in which every text is text, in the page's own colours."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pytest

import rtpool
from rtpool._support import html as tables


class Tables(html.parser.HTMLParser):
    """The cells of a page's tables, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


HARM = "<script>alert(1)</script>&\"'"


def test_text_stays_text() -> None:
    text = tables.heading(HARM) + tables.table([[HARM, 1]], head=[HARM, HARM]) + tables.note(HARM)
    read = Tables(text)
    assert read.cells == [HARM, HARM, HARM, "1"]
    assert read.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert '"' not in tables.escape(HARM) and "'" not in tables.escape(HARM)


def test_no_colour_is_fixed() -> None:
    """On light and dark pages alike: the text's colour is inherited, lines are half transparent."""
    text = tables.heading("x") + tables.table([["a", 1]], head=["b", "c"]) + tables.note("y")
    for declaration in re.findall(r"[\w-]*color[^;\"]*|background[^;\"]*|border[^;\"]*", text):
        assert not re.search(r"#[0-9a-f]{3}|white|black", declaration), declaration


def shown(value: object) -> Tables:
    return Tables(value._repr_html_())  # type: ignore[attr-defined]


def test_pools_and_their_figures() -> None:
    pool = rtpool.Pool("1 MiB", name="<b>frames</b>")
    with rtpool.handler(pool), pool.learn() as plan:
        kept = np.empty(1000)
    for value in (pool, pool.stats(), plan, pool.effective):
        assert shown(value).cells
        assert "<b>" not in value._repr_html_()
    cells = shown(pool.stats()).cells
    assert cells[cells.index("memory held") + 1] == f"{pool.stats().capacity_bytes:,}"
    assert "free" in {cell.strip() for cell in cells}
    head = shown(plan).cells[:5]
    assert head == ["bytes", "most alive", "together", "asked for", "zeroed"]
    assert {"setting", "asked", "in force", "huge_pages"} <= set(shown(pool.effective).cells)
    del kept


def test_tables_say_what_the_text_says() -> None:
    pool = rtpool.Pool("1 MiB")
    for value in (pool.stats(), pool.effective):
        words = re.findall(r"[\w,.]+", str(value))
        assert words and all(word in value._repr_html_() for word in words)


def test_shared_pools_have_their_own_lines() -> None:
    with rtpool.SharedPool.create("1 MiB") as pool:
        cells = [cell.strip() for cell in shown(pool.stats()).cells]
    assert {"memory held", "processes", "shared blocks"} <= set(cells)


@pytest.mark.parametrize("mode", ["events", "totals"])
def test_traces(mode: str) -> None:
    with rtpool.handler(rtpool.Pool()), rtpool.record(mode=mode) as recording:  # type: ignore[arg-type]
        for _ in recording.iterations(range(3)):
            np.ones(1000) * 2
    cells = shown(recording.trace).cells
    assert "peak" in cells and "most bytes" in cells
    assert any("np.ones(1000) * 2" in cell for cell in cells)
