"""The page of a trace: one file of bounded size, in which nothing but its own code can run."""

from __future__ import annotations

import html.parser
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_files import Event, load, loop, mark, trace_file
from waits import joined

import rtpool
from rtpool._trace import events as format
from rtpool._trace import pictures

MOST = 2_000_000
HOSTILE = [
    "</script><script>window.harm=1</script>", "<img src=x onerror='window.harm=1'>", "{{data}}{{script}}", "<!--",
    "\u2028\u2029", "\x00\x1b[2J", "]]>", "'\"`;window.harm=1;//", "&lt;b&gt;", "$(window.harm=1)", "ünï©ødé 🙂", "",
]  # fmt: skip


class Reader(html.parser.HTMLParser):
    """What a browser would make of the page: scripts, their kind, and everything that leads out of it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.outward: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.policy = ""
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        told = dict(attributes)
        self.outward += [
            (tag, name) for name in told if name in ("src", "href", "srcset", "action") or name[:2] == "on"
        ]
        if tag == "script":
            self._inside = True
            self.scripts.append((told, ""))
        if told.get("http-equiv") == "Content-Security-Policy":
            self.policy = told["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            told, before = self.scripts[-1]
            self.scripts[-1] = told, before + data


def data_of(text: str) -> dict[str, Any]:
    """The page's data, with what must hold of every page."""
    read = Reader(text)
    assert len(text.encode()) <= MOST
    assert len(read.scripts) == 4 and not read.outward
    assert read.scripts[0][0] == {"type": "application/json", "id": "data"}
    assert not {"img", "iframe", "object", "link", "base", "b"} & set(read.tags)
    assert (
        read.policy.startswith("default-src 'none'") and "'unsafe-inline'" not in read.policy.partition("script-src")[2]
    )
    found: dict[str, Any] = json.loads(read.scripts[0][1])
    leaves, frames, expressions = found["leaves"], found["frames"], found["expressions"]
    cells = found["cells"]
    assert len({len(cells[name]) for name in cells}) == 1
    assert all(0 <= leaf < len(leaves) for leaf in cells["leaf"])
    assert 0 <= sum(cells["step"]) < max(1, found["cellSteps"]) or not cells["step"]
    assert all(0 <= at < len(expressions) and all(0 <= f < len(frames) for f in way) and way for at, way in leaves)
    assert all(-1 <= file < len(found["files"]) for _, file in frames)
    assert len(found["alive"]) == found["steps"] and len(found["peak"]["leaves"]) == len(leaves)
    for lane in found["lanes"]:
        assert all(begin <= end <= found["seconds"] + 1e-6 for begin, end, _, _ in lane["items"])
        assert sum(many for _, _, many, _ in lane["items"]) == lane["total"]
    return found


def page_of(trace: rtpool.Trace) -> dict[str, Any]:
    return data_of(pictures.html(trace))


def test_what_the_page_holds(tmp_path: Path) -> None:
    program = tmp_path / "prögram.py"
    program.write_text("import numpy as np\nä = np.ones(1000) * 2 + 1\n", encoding="utf-8")
    begin = len("ä = ".encode())
    places = [(str(program), "<module>", 2, begin, begin + 16), (str(program), "<module>", 2, begin, begin + 20)]
    trace = load(trace_file([loop(10, 2)], places=places, meta={"directory": str(tmp_path)}))
    found = page_of(trace)
    sums = trace.analysis.sums
    for name, total in (("calls", 20), ("bytes", 10 * 1000 + 10 * 2000), ("misses", 2), ("temporaries", 10)):
        assert sum(found["cells"][name]) == int(sums[name].sum()) == total, name
    assert found["lanes"][0]["name"] == "iterations" and found["lanes"][0]["total"] == 10
    file = found["files"][0]
    assert file["name"] == "prögram.py" and file["lines"]["2"] == "ä = np.ones(1000) * 2 + 1"
    assert file["note"] == ""
    columns = sorted(tuple(expression[3:]) for expression in found["expressions"])
    assert [file["lines"]["2"][a:b] for a, b in columns] == ["np.ones(1000) * ", "np.ones(1000) * 2 + "]
    assert max(found["alive"]) == trace.analysis.peak_bytes == found["peak"]["bytes"] == sum(found["peak"]["leaves"])
    assert [frame[0] for frame in found["frames"]][:2] == ["prögram.py", "<module>"]


def test_a_source_that_changed_or_is_gone_is_named(tmp_path: Path) -> None:
    there, gone = tmp_path / "there.py", tmp_path / "gone.py"
    there.write_text("x = 1\n" * 3)
    places = [(str(there), "f", 2, 0, 1), (str(gone), "g", 2, 0, 1), (str(tmp_path), "h", 1, -1, -1)]
    notes = {
        file["name"]: file["note"]
        for file in page_of(
            load(trace_file([loop(3, 3)], places=places, meta={"begun": 1.0, "directory": str(tmp_path)}))
        )["files"]
    }
    assert "changed since" in notes["there.py"] and "not there" in notes["gone.py"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str, tmp_path: Path) -> None:
    events = [mark(900, format.SPAN_BEGIN, 1), *loop(3, 2), mark(10**7, format.SPAN_END, 1)]
    data = trace_file(
        [events], places=[(text, text, 1, 0, 5), (f"/x/{text}.py", text, 2, 0, 5)], spans=[text],
        meta={"arguments": [text], "directory": text}, end={"lost_by_limit": text, "dropped": text},
    )  # fmt: skip
    found = page_of(load(data))
    printable = "".join(c if c.isprintable() else "?" for c in text)
    assert any(frame[0] == printable for frame in found["frames"])
    trace = load(data)
    assert "<script>" not in trace._repr_html_() and "<img" not in trace._repr_html_()
    for write in (trace.to_speedscope, trace.to_perfetto):
        write(tmp_path / "file")


def test_nothing_recorded() -> None:
    found = page_of(load(trace_file()))
    assert not found["timed"] and not found["leaves"] and found["cells"]["step"] == []
    with rtpool.handler(rtpool.Pool()), rtpool.record() as recording:
        pass
    page_of(recording.trace)


def test_totals_have_no_timeline() -> None:
    with rtpool.handler(rtpool.Pool()), rtpool.record(mode="totals") as recording:
        for _ in range(100):
            np.empty(5000)
    found = page_of(recording.trace)
    assert not found["timed"] and sum(found["cells"]["calls"]) == 100
    assert any("totals" in note for note in found["notes"])


def test_rings_say_what_made_room() -> None:
    with rtpool.handler(rtpool.Pool()), rtpool.record(mode="ring", limit="1 MiB") as recording:
        for _ in range(300_000):
            np.empty(100)
    assert recording.report.dropped
    found = page_of(recording.trace)
    assert found["timed"] and any("made room" in note for note in found["notes"])


def test_threads_and_stacks() -> None:
    pool = rtpool.Pool()

    def work() -> None:
        with rtpool.handler(pool), recording.span("thread"):
            for _ in range(200):
                np.ones(300) * 2

    with rtpool.record(pool=pool, stacks="full") as recording:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            joined(thread)
    found = page_of(recording.trace)
    assert sum(found["cells"]["calls"]) == int(recording.trace.analysis.sums["calls"].sum())
    assert [(lane["name"], lane["total"]) for lane in found["lanes"]] == [("thread", 3)]
    names = {found["frames"][frame][0] for _, way in found["leaves"] for frame in way}
    assert any(name.startswith("Thread.run") or name.startswith("run (threading.py") for name in names)


def many_places(count: int, turns: int) -> bytes:
    """A place a function with a long name, all of them in every turn."""
    name = "f" * 280
    places = [(f"/code/{'d' * 200}/{number}.py", f"{name}{number}", number, 0, 9) for number in range(1, count + 1)]
    return trace_file([loop(turns, count)], places=places)


def test_the_page_keeps_its_size() -> None:
    trace = load(many_places(4000, 30))
    found = page_of(trace)
    assert sum(found["cells"]["bytes"]) == int(trace.analysis.sums["bytes"].sum())
    assert any("together" in frame[0] for frame in found["frames"])


def test_deep_stacks_are_cut() -> None:
    deep = 3000
    places = [(f"/code/{number}.py", f"f{number}", number, -1, -1) for number in range(1, deep + 1)]
    stacks = [(number, number + 1) for number in range(deep)]
    events = [(1000 * k, format.ALLOCATE, k, 4096 * k, 100) for k in range(1, deep + 1)]
    found = page_of(load(trace_file([events], places=places, stacks=stacks)))
    assert max(len(way) for _, way in found["leaves"]) <= 61


def test_a_million_iterations_are_told_by_a_few_marks() -> None:
    events: list[Event] = []
    for turn in range(100_000):
        events += [mark(10 * turn, format.ITERATION_BEGIN, turn), mark(10 * turn + 9, format.ITERATION_END, turn)]
    found = page_of(load(trace_file([events])))
    lane = found["lanes"][0]
    assert lane["total"] == 100_000 and len(lane["items"]) <= 601


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_events_make_a_page_and_exports(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Sizes, times and addresses as a hostile file may have them: a page, or a `TraceError`, and nothing else."""
    step = st.integers(0, 1 << data.draw(st.sampled_from([3, 20, 39])))
    size = st.integers(0, data.draw(st.sampled_from([100, 1 << 30, (1 << 62) - 1])))
    event = st.tuples(step, st.integers(0, 255), st.integers(0, 6), st.integers(0, 8), size)
    threads = []
    for _ in range(data.draw(st.integers(0, 3))):
        time, events = data.draw(st.integers(0, 1 << 40)), []
        many = data.draw(st.integers(0, 40))
        for later, kind, place, address, large in data.draw(st.lists(event, min_size=many, max_size=many)):
            time += later
            events.append((time, kind & ~format.SAME_SIZE, place, address, large))
        threads.append(events)
    words = st.text(max_size=20) | st.sampled_from(HOSTILE)
    places = [(data.draw(words), data.draw(words), data.draw(st.integers(0, 1 << 31)), 0, 3) for _ in range(3)]
    trace = load(trace_file(threads, places=places, spans=[data.draw(words)]))
    try:
        page_of(trace)
    except rtpool.TraceError:
        return
    folder = tmp_path_factory.mktemp("exports")
    trace.to_speedscope(folder / "speedscope.json")
    trace.to_perfetto(folder / "perfetto")
    assert json.loads((folder / "speedscope.json").read_text())["profiles"]


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    trace = load(trace_file([loop(3, 2)]))
    with pytest.raises(OSError):
        trace.to_html(tmp_path / "none" / "page.html")
    path = tmp_path / "page.html"
    trace.to_html(path)
    assert data_of(path.read_text(encoding="utf-8"))["timed"]
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_command_line(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "loop.trace"
    path.write_bytes(trace_file([loop(5, 3)], places=[("/code/p.py", "f", n, 0, 5) for n in (1, 2, 3)]))
    for verb, ending in (("html", ".html"), ("speedscope", ".speedscope.json"), ("perfetto", ".perfetto-trace")):
        done = command("trace", verb, path)
        assert done.code == 0 and ending in done.out, done.err
        assert (tmp_path / f"loop.trace{ending}").stat().st_size
        assert command("trace", verb, path, "-o", tmp_path / "elsewhere").code == 0
    assert re.search(r"\S", command("trace", "html", tmp_path / "none").err)
    assert command("trace", "html", path, "-o", tmp_path / "no" / "folder").code == 2
