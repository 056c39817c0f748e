"""Files for speedscope hold what its published schema and its own reader ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Browser, app_of_speedscope
from trace_files import load, loop, trace_file

import rtpool


@pytest.fixture(scope="module")
def recorded() -> rtpool.Trace:
    def inner(n: int) -> float:
        return float((np.ones(n) * 2 + 1).sum())

    with rtpool.handler(rtpool.Pool()), rtpool.record(stacks="full") as recording:
        kept = []
        for number in recording.iterations(range(40)):
            inner(1000 + 100 * (number % 3))
            kept.append(np.zeros(500))
    return recording.trace


def written(trace: rtpool.Trace, folder: Path) -> dict[str, Any]:
    path = folder / "trace.speedscope.json"
    trace.to_speedscope(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for profile in found["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"]) and profile["endValue"] == sum(profile["weights"])
        assert all(0 <= frame < len(found["shared"]["frames"]) for sample in profile["samples"] for frame in sample)
    return found


def test_weights_are_the_sums(recorded: rtpool.Trace, tmp_path: Path) -> None:
    found = {profile["name"]: profile for profile in written(recorded, tmp_path)["profiles"]}
    sums = recorded.analysis.sums
    assert (
        found["bytes asked for"]["endValue"] == int(sums["bytes"].sum()) and found["bytes asked for"]["unit"] == "bytes"
    )
    assert found["arrays"]["endValue"] == int(sums["calls"].sum())
    assert found["bytes of temporaries"]["endValue"] == int(sums["temporary_bytes"].sum())
    assert found["alive at the peak"]["endValue"] == recorded.analysis.peak_bytes
    assert found["process resident at most"]["endValue"] == recorded.resident_bytes > recorded.analysis.peak_bytes


def test_what_is_not_seen_is_named(recorded: rtpool.Trace, tmp_path: Path) -> None:
    found = written(recorded, tmp_path)
    (box,) = next(p["samples"] for p in found["profiles"] if p["name"] == "process resident at most")[0]
    assert "not seen: NumPy's iterator buffers" in found["shared"]["frames"][box]["name"]


def test_stacks_go_from_outside_in(recorded: rtpool.Trace, tmp_path: Path) -> None:
    found = written(recorded, tmp_path)
    names = [frame["name"] for frame in found["shared"]["frames"]]
    ways = [[names[frame].partition(" (")[0] for frame in sample] for sample in found["profiles"][0]["samples"]]
    way = next(way for way in ways if any(name.endswith("inner") for name in way))
    inner = next(number for number, name in enumerate(way) if name.endswith("inner"))
    assert way[inner - 1] == "recorded" and inner > 5


@pytest.mark.parametrize("data", [trace_file(), trace_file([loop(5, 3)])], ids=["nothing", "no names"])
def test_the_schema_holds(recorded: rtpool.Trace, data: bytes, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = [*app_of_speedscope().glob("file-format-schema.json")]
    if not schemas:
        pytest.skip("this speedscope comes without its schema")
    schema = json.loads(schemas[0].read_text(encoding="utf-8"))
    for trace in (recorded, load(data)):
        jsonschema.validate(written(trace, tmp_path), schema)


def test_speedscope_opens_it(recorded: rtpool.Trace, browser: Browser, tmp_path: Path) -> None:
    """The program itself, in a browser: it names the profile and draws it."""
    app = app_of_speedscope()
    path = tmp_path / "trace.speedscope.json"
    recorded.to_speedscope(path)
    with browser.page(app) as page:
        page.goto(page.base + "/index.html")
        page.set_input_files("input[type=file]", str(path))
        page.wait_for_selector("text=bytes asked for")
        text = page.inner_text("body")
        assert "bytes asked for" in text and "error" not in text.lower()
        assert page.locator("canvas").count() >= 1
