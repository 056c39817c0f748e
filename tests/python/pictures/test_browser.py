"""The page in a real browser: it draws, the brush works by mouse and by finger, and nothing in a trace runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Browser
from test_page import HOSTILE, many_places
from trace_files import load, loop, mark, trace_file

import rtpool
from rtpool._trace import events as format

PROGRAM = """
import numpy as np

def frame(image):
    grey = image @ np.array([0.3, 0.6, 0.1])
    edges = np.abs(grey[1:] - grey[:-1])
    return float(edges.max())

def keep(kept):
    kept.append(np.zeros(20_000))
"""
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small program: 60 iterations, in the second half of which something is kept."""
    folder = tmp_path_factory.mktemp("page")
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, str(program), "exec"), names)
    image, kept = np.ones((120, 160, 3)), []  # type: ignore[var-annotated]
    names["frame"](image)  # what happens once takes long
    with rtpool.handler(rtpool.Pool()), rtpool.record() as recording:
        for number in recording.iterations(range(60)):
            with recording.span("frame"):
                names["frame"](image)
            if number >= 30:
                names["keep"](kept)
    recording.trace.to_html(folder / "page.html")
    return folder / "page.html"


def opened(page: Any, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait_for_function("window.rtpoolTrace && window.rtpoolTrace.ready")
    page.wait_for_timeout(0)


def calls(page: Any) -> int:
    return int(page.evaluate("rtpoolTrace.sums().reduce((sum, leaf) => sum + leaf.calls, 0)"))


def chosen(page: Any) -> tuple[int, int]:
    part = page.evaluate("rtpoolTrace.chosen()")
    return part["begin"], part["end"]


def busy_part(page: Any) -> tuple[float, float]:
    """A part of the timeline in which something was made, wherever the machine had to wait: shares of its width."""
    first, last = page.evaluate(
        "(() => { const data = JSON.parse(document.getElementById('data').textContent); let at = 0;"
        " const steps = data.cells.step.map((more) => at += more).filter((_, i) => data.cells.calls[i] > 0);"
        " return [1, 2].map((part) => steps[Math.floor(part * steps.length / 4)] / data.cellSteps) })()"
    )
    return first, max(last, first + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_draws(made: Path, browser: Browser, size: str, scheme: str) -> None:
    with browser.page(strict=True, viewport=SIZES[size], color_scheme=scheme) as page:
        opened(page, made)
        assert page.locator("#curve canvas").count() == 1
        assert page.locator("#lanes .lane").count() == 2
        page.wait_for_selector("#flame rect")
        page.wait_for_function("document.querySelector('#flame .d3-flame-graph-label').textContent")
        assert page.locator("#lines tbody tr").count() >= 3
        code = page.inner_text("#source")
        assert "edges = np.abs(grey[1:] - grey[:-1])" in code
        assert page.locator("#source .text span").count() >= 3
        # Nothing is wider than the screen, and on a telephone nothing is out of sight to the side.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll, .file')].filter((e) => e.scrollWidth > e.clientWidth).length"
        )
        assert hidden == 0
        indents = page.evaluate(
            "[...document.querySelectorAll('#source .text')].map((e) => getComputedStyle(e).paddingLeft)"
        )
        assert len(set(indents)) == 2
        clipped = page.evaluate("document.querySelector('#curve .u-over').offsetLeft")
        assert clipped >= 76
        drawn = page.evaluate(
            "(() => { const c = document.querySelector('#curve canvas');"
            " return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size })()"
        )
        assert drawn > 10
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, dark[4:-1].split(","))) < 300) == (scheme == "dark")


def test_the_brush(made: Path, browser: Browser) -> None:
    with browser.page(strict=True, viewport=SIZES["desktop"]) as page:
        opened(page, made)
        whole = calls(page)
        over = page.locator("#curve .u-over").bounding_box()
        middle = over["y"] + over["height"] / 2
        begin, end = busy_part(page)
        page.mouse.move(over["x"] + over["width"] * begin, middle)
        page.mouse.down()
        page.mouse.move(over["x"] + over["width"] * end, middle, steps=4)
        page.mouse.up()
        first, last = chosen(page)
        steps = page.evaluate("JSON.parse(document.getElementById('data').textContent).cellSteps")
        assert first == pytest.approx(begin * steps, abs=2) and last == pytest.approx(end * steps, abs=2)
        assert 0 < calls(page) < whole
        assert "to" in page.inner_text("#chosen")
        assert page.locator("#curve .u-select").bounding_box()["width"] == pytest.approx(
            (end - begin) * over["width"], abs=5
        )
        # A click without a drag, the button and the fields.
        page.mouse.click(over["x"] + over["width"] * 0.8, middle)
        assert calls(page) == whole and "whole" in page.inner_text("#chosen")
        page.fill("#from", str(page.evaluate("JSON.parse(document.getElementById('data').textContent).seconds / 2")))
        page.press("#from", "Tab")
        assert chosen(page)[0] == pytest.approx(steps / 2, abs=1)
        page.click("#whole")
        assert calls(page) == whole


def test_the_brush_by_finger(made: Path, browser: Browser) -> None:
    with browser.page(strict=True, viewport=SIZES["phone"], has_touch=True, is_mobile=True) as page:
        opened(page, made)
        page.locator("#curve").scroll_into_view_if_needed()
        whole = calls(page)
        over = page.locator("#curve .u-over").bounding_box()
        y = over["y"] + over["height"] / 2
        touch = page.context.new_cdp_session(page)
        begin, end = busy_part(page)

        def at(share: float) -> list[dict[str, float]]:
            return [{"x": over["x"] + over["width"] * share, "y": y}]

        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at(begin)})
        for share in (begin * 0.6 + end * 0.4, begin * 0.3 + end * 0.7, end):
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": at(share)})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert 0 < calls(page) < whole


def test_an_iteration_is_chosen_by_a_click(made: Path, browser: Browser) -> None:
    with browser.page(strict=True, viewport=SIZES["desktop"]) as page:
        opened(page, made)
        whole = calls(page)
        strip = page.locator("#lanes canvas").first.bounding_box()
        page.mouse.move(strip["x"] + strip["width"] / 2, strip["y"] + 8)
        assert page.inner_text("#hovered").startswith("iteration ")
        page.mouse.click(strip["x"] + strip["width"] / 2, strip["y"] + 8)
        assert 0 < calls(page) < whole / 5


def test_metrics_search_and_zoom(made: Path, browser: Browser) -> None:
    with browser.page(strict=True, viewport=SIZES["desktop"]) as page:
        opened(page, made)
        for name in ("temporary_bytes", "calls", "misses", "peak", "alive"):
            page.select_option("#metric", name)
            page.wait_for_selector("#flame rect")
        page.wait_for_function("document.querySelector('#flame').textContent.includes('keep')")
        page.select_option("#metric", "bytes")
        page.fill("#find", "frame")
        fills = page.evaluate("[...document.querySelectorAll('#flame rect')].map((rect) => rect.getAttribute('fill'))")
        assert len(set(fills)) > 1 and "#e7a6f2" in fills
        page.fill("#find", "(")  # no pattern, a text
        page.fill("#find", "")
        page.locator("#flame g.frame").nth(2).hover()
        assert "%" in page.inner_text("#box")
        page.locator("#flame g.frame").nth(2).click()
        page.click("#unzoom")


@pytest.mark.parametrize("stacks", [False, True], ids=["sites", "stacks"])
def test_nothing_in_a_trace_runs(browser: Browser, tmp_path: Path, stacks: bool) -> None:
    places = [(text, text, number, 0, 5) for number, text in enumerate(HOSTILE, 1)]
    for number, text in enumerate(HOSTILE):
        if text and "/" not in text and "\0" not in text:
            (tmp_path / text).write_text(f"{text}\n" * 30, encoding="utf-8")
            places[number] = (str(tmp_path / text), text, 2, 0, len(text.encode()))
    events = [mark(900, format.SPAN_BEGIN, 1), *loop(4, len(places)), mark(10**9, format.SPAN_END, 1)]
    data = trace_file(
        [events], places=places, spans=[HOSTILE[0]], meta={"arguments": HOSTILE},
        stacks=[(max(0, n - 1), n) for n in range(1, len(places) + 1)] if stacks else (),
    )  # fmt: skip
    load(data).to_html(tmp_path / "page.html")
    with browser.page(strict=True, viewport=SIZES["desktop"]) as page:
        opened(page, tmp_path / "page.html")
        page.wait_for_selector("#flame rect")
        for fold in page.locator("summary").all():
            fold.click()
        for place in page.locator("#flame g.frame").all()[:20]:
            place.hover(force=True)
        strip = page.locator("#lanes canvas").first
        strip.hover()
        assert page.evaluate("typeof window.harm") == "undefined"
        assert page.locator("img, iframe, object, embed").count() == 0


def test_the_largest_page_opens(browser: Browser, tmp_path: Path) -> None:
    load(many_places(4000, 30)).to_html(tmp_path / "page.html")
    with browser.page(strict=True, viewport=SIZES["desktop"]) as page:
        opened(page, tmp_path / "page.html")
        page.wait_for_selector("#flame rect")
        assert page.locator("#lines tbody tr").count() == 16


@pytest.mark.parametrize("mode", ["totals", "nothing"])
def test_pages_without_a_timeline(browser: Browser, tmp_path: Path, mode: str) -> None:
    if mode == "totals":
        with rtpool.handler(rtpool.Pool()), rtpool.record(mode="totals") as recording:
            np.empty(1000)
        trace = recording.trace
    else:
        trace = load(trace_file())
    trace.to_html(tmp_path / "page.html")
    with browser.page(strict=True) as page:
        opened(page, tmp_path / "page.html")
        assert page.locator("#when").is_hidden()
        if mode == "totals":
            page.wait_for_selector("#flame rect")
