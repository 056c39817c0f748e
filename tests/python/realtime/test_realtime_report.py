"""Reports: their figures, and their forms as text, HTML, JSON, cyclictest lines and picture."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np
import pytest
from libcs import keeps_memory

import rtpool
from rtpool._realtime.faults import FaultOrigin, remedies


@pytest.fixture(scope="module")
def report():
    with rtpool.realtime(0.002, warmup=5, iterations=300, pool=rtpool.Pool(), gc="disable") as rt:
        for tick in rt:
            np.zeros(50_000)
            if tick.index == 77:
                time.sleep(0.005)
                np.ones(123_456)
    return rt.report


def test_figures_agree_with_each_other(report) -> None:
    duration, lateness = report.duration, report.lateness
    assert report.iterations == duration.count == lateness.count == 300
    assert report.overruns >= 1 and report.skipped >= 2
    assert report.max_duration == duration.max >= 0.005
    assert 0 < duration.min <= duration.mean <= duration.max
    quantiles = [duration.percentile(q) for q in (0, 50, 90, 99, 99.9, 100)]
    assert quantiles == sorted(quantiles) and quantiles[0] == duration.min and quantiles[-1] == duration.max
    assert sum(count for _, _, count in duration.histogram()) == 300
    assert len(report.slowest) == 32 and report.slowest[0].duration == pytest.approx(duration.max)
    # Not the first of all where the machine stood still for longer.
    (slept,) = [one for one in report.slowest if one.index == 77]
    assert slept.duration >= 0.005 and slept.overrun and slept.voluntary_switches >= 1
    assert [one.duration for one in report.slowest] == sorted((one.duration for one in report.slowest), reverse=True)
    assert sum(stretch.count for stretch in report.timeline) == 300
    assert max(stretch.max for stretch in report.timeline) == pytest.approx(duration.max)
    assert len(report.first) == 128
    assert report.misses == 1 and dict(report.deviations) == {123_456 * 8: 1}
    assert report.voluntary_switches >= slept.voluntary_switches
    assert report.elapsed >= 299 * 0.002


@pytest.mark.parametrize("q", [-1, 101, float("nan")])
def test_percentiles_outside_of_the_range(report, q: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        report.duration.percentile(q)
    with pytest.raises(TypeError):
        report.duration.percentile("50")


def test_faults_belong_to_their_iteration() -> None:
    with rtpool.realtime(pool=rtpool.Pool("64 KiB"), gc="keep", malloc="keep", iterations=40) as rt:
        for tick in rt:
            if tick.index == 35:
                # Outside of every pool: a mapping of its own.
                import mmap

                with mmap.mmap(-1, 300 * 4096) as fresh:
                    fresh.write(b"x" * (300 * 4096))
    if rt.report.environment.watch != "exact":
        pytest.skip(rt.report.environment.watch)
    slow = {one.index: one for one in rt.report.slowest}
    assert slow[35].span == 1 and slow[35].minor_faults >= 10
    assert slow[35].minor_faults >= rt.report.minor_faults - 30


@keeps_memory
def test_text_begins_with_what_matters_most(report) -> None:
    lines = str(report).splitlines()
    assert lines[0].startswith(f"overruns {report.overruns}") and "longest iteration" in lines[0]
    assert re.split(r"\s+", lines[2].strip()) == ["min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
    text = "\n".join(lines)
    for word in (
        "page faults",
        "switches",
        "0 kernel calls, 1 misses",
        "not in the plan",
        "slowest",
        "kernel  ",
        "77!",
    ):
        assert word in text, word
    assert max(map(len, lines[:20])) < 140
    assert repr(report).startswith(f"<report: {report.overruns} overruns in 300 iterations")


def test_html_is_escaped(report) -> None:
    page = report._repr_html_()
    assert page.startswith("<div>") and page.count("<table>") == page.count("</table>") >= 3
    kernel = report.environment._replace(kernel="<script>")
    assert "<script>" not in report._replace(environment=kernel)._repr_html_()


def test_json_holds_everything(report) -> None:
    data = json.loads(report.to_json(indent=1))
    assert list(data)[:4] == ["overruns", "skipped", "max_duration", "max_lateness"]
    assert set(report._fields) == set(data)
    assert data["duration"]["p99.9"] == report.duration.percentile(99.9)
    assert sum(count for _, _, count in data["duration"]["buckets_ns"]) == 300
    assert [one["index"] for one in data["slowest"]] == [one.index for one in report.slowest]
    assert len(data["timeline"]) == len(report.timeline)
    assert data["deviations"] == [{"requested": 123_456 * 8, "count": 1}]
    assert data["environment"]["kernel"] and data["pool"]["kernel_calls"] == 0


def test_cyclictest_lines_are_read_by_its_scripts(report) -> None:
    text = report.cyclictest(bins=int(report.max_lateness * 1e6) + 1)  # however late: no overflows
    # The usual plotting script: drop comments and empty lines, the rest are `microseconds count`.
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert [int(micro) for micro, _ in rows] == list(range(len(rows)))
    assert all(re.fullmatch(r"\d{6}", cell) for row in rows for cell in row)
    assert sum(int(count) for _, count in rows) == 300
    assert report.max_lateness >= 0.01 or report.cyclictest() == text  # up to 10,000 lines by themselves
    latest = re.search(r"^# Max Latencies: (\d+)$", text, re.MULTILINE)
    assert latest and int(latest[1]) == int(report.max_lateness * 1e6)
    few = report.cyclictest("duration", bins=10)
    assert len([line for line in few.splitlines() if not line.startswith("#")]) == 10
    counted = sum(int(line.split()[1]) for line in few.splitlines() if not line.startswith("#"))
    assert f"# Histogram Overflows: {300 - counted:05d}" in few
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError):
            report.cyclictest(bins=wrong)
    with pytest.raises(ValueError):
        report.cyclictest("work")


def test_a_report_of_nothing() -> None:
    with rtpool.realtime(0.001, pool=rtpool.Pool(), gc="keep") as rt:
        pass
    report = rt.report
    assert report.iterations == 0 and report.max_duration == 0 and report.slowest == () and report.duration.min == 0
    assert "0 iterations" in str(report) and report._repr_html_() and json.loads(report.to_json())
    assert report.cyclictest().startswith("# Histogram\n000000 000000\n")


def test_the_picture(report, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000
    over_time, histogram = figure.axes
    assert over_time.get_xlabel().startswith("time") and histogram.get_xlabel() == "us"
    with rtpool.realtime(pool=rtpool.Pool(), gc="keep", iterations=5000) as rt:
        for _ in rt:
            pass
    assert rt.report.plot().axes[0].get_legend() is not None
    with rtpool.realtime(pool=rtpool.Pool(), gc="keep") as rt:
        pass
    with pytest.raises(ValueError, match="no iterations"):
        rt.report.plot()


@pytest.mark.parametrize(
    ("kind", "where", "remedy"),
    [
        ("pool", "pool lazy: large block", "prefault=True"),
        ("objects", "arena of Python's own", "objects='pool'"),
        ("objects", "pool lazy: object arena", "as many objects as the loop does"),
        ("objects", "frames of Python's calls", "call as deep"),
        ("libc", "heap", "let the warm-up do all that the loop does"),
        ("libc", "block with a mapping of its own, gone since", "malloc='tune'"),
        ("stack", "stack of this thread", "call as deep"),
        ("stack", "stack of thread 123", "start threads before the section"),
        ("stack", "stack of a thread that began meanwhile", "start threads before the section"),
        ("file", "_csv.so: code, mapped meanwhile", "before the section"),
        ("file", "libm.so.6: code", "call it once before the section"),
        ("file", "libm.so.6: data", "call it once before the section"),
        ("file", "/data/table.bin: file contents", "read files that are mapped once before the section"),
        ("other", "nameless memory", "lock_process=True"),
        ("other", "not seen: the kernel's ring ran over", None),
    ],
)
def test_each_origin_comes_with_what_to_do(kind: Any, where: str, remedy: str | None) -> None:
    told = remedies((FaultOrigin(kind, where, 2, 0), FaultOrigin(kind, where, 1, 1, "another")))
    assert [remedy in one for one in told] == [True] if remedy is not None else told == []
