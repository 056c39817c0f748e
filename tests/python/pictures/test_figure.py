"""Traces as figures of matplotlib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trace_files import load, loop, trace_file

import rtpool

pytest.importorskip("matplotlib", reason="pip install rtpool[plot]")


def test_a_figure_of_the_trace(tmp_path: Path) -> None:
    with rtpool.handler(rtpool.Pool()), rtpool.record() as recording:
        for _ in recording.iterations(range(20)):
            with recording.span("$span$"):
                np.ones(10_000) * 2
    figure = recording.trace.plot(tmp_path / "trace.png")
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"
    over_time, lines = figure.axes
    steps = over_time.patches[0].get_data()
    assert max(steps.values) == recording.trace.analysis.peak_bytes
    assert len(lines.get_yticklabels()) == len(recording.trace.by_line()[:8])
    assert "20 iterations" in figure.get_suptitle()


@pytest.mark.parametrize("mode", ["totals", "nothing", "names"])
def test_other_traces(mode: str, tmp_path: Path) -> None:
    if mode == "totals":
        with rtpool.handler(rtpool.Pool()), rtpool.record(mode="totals") as recording:
            np.empty(1000)
        trace = recording.trace
    elif mode == "nothing":
        trace = load(trace_file())
    else:
        trace = load(trace_file([loop(3, 2)], places=[("$\\frac{", "$_^", 1, 0, 5), ("<b>", "{x", 2, 0, 5)]))
    trace.plot(tmp_path / "trace.svg")
    assert (tmp_path / "trace.svg").stat().st_size


def test_without_matplotlib_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "import rtpool\n"
        "with rtpool.handler(), rtpool.record() as recording: pass\n"
        "try: recording.trace.plot()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install rtpool[plot]" in done.stdout, done.stderr
