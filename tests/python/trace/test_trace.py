"""What `rtpool.Trace` tells, held against a slow second way of working it out."""

from __future__ import annotations

import csv
import io
import json
import mmap
import random
import subprocess
import sys
import threading
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from commands import Command
from traced import PROGRAM, PYTHON_KEEPS_COLUMNS, defined, traced
from waits import joined

import rtpool
from rtpool._trace import events as format
from rtpool._trace.analysis import Analysis
from rtpool._trace.by_pool import Owners
from rtpool._trace.file import PoolRange, TraceFile
from rtpool._trace.sizes import granted_bytes


@pytest.fixture
def pool() -> rtpool.Pool:
    return rtpool.Pool(name="traced")


def wander(seed: int, turns: int, recording: rtpool.record) -> None:
    """Arrays of some sizes that live for a while, in iterations."""
    chance = random.Random(seed)
    kept: list[np.ndarray] = []
    for _ in recording.iterations(range(turns)):
        for _ in range(chance.randrange(8)):
            kept.append(np.empty(chance.choice([10, 700, 3000, 70_000]), np.uint8))
        while len(kept) > 12:
            del kept[chance.randrange(len(kept))]
        short = np.zeros(chance.choice([64, 5000]))
        del short


def slow_sums(file: TraceFile) -> dict[str, Any]:
    """The same as `Analysis`, an event at a time."""
    events = format.join(list(file.windows()))
    live: dict[int, tuple[int, int, int, int]] = {}  # address: size, place, time, iteration
    sums: dict[str, dict[int, int]] = {name: {} for name in ("calls", "bytes", "frees", "lifetime", "temporaries")}
    iteration, now, peak, peak_places = -1, 0, 0, {}
    working: dict[int, dict[int, int]] = {}

    def add(name: str, place: int, value: int = 1) -> None:
        sums[name][place] = sums[name].get(place, 0) + value

    for time, kind, place, address, size, _ in zip(*(column.tolist() for column in events), strict=True):
        what = kind & 3
        if what == format.MARK:
            if kind >> 2 & 15 == format.ITERATION_BEGIN:
                iteration = size
            if kind >> 2 & 15 == format.ITERATION_END:
                iteration = -1
        elif what == format.FREE:
            old, maker, born, when = live.pop(address)
            now -= old
            add("frees", maker)
            if maker:
                add("lifetime", maker, time - born)
                if when >= 0 and when == iteration:
                    add("temporaries", maker)
        else:
            live[address] = (size, place, time, iteration)
            now += size
            if what == format.ALLOCATE:
                add("calls", place)
                add("bytes", place, size)
                if iteration >= 0:
                    here = working.setdefault(iteration, {})
                    here.setdefault(address, int(granted_bytes(np.array([size]))[0]))
            if now > peak:
                peak, peak_places = now, {}
                for one, maker, *_ in live.values():
                    peak_places[maker] = peak_places.get(maker, 0) + one
    return {"sums": sums, "peak": peak, "peak_places": peak_places,
            "working": [sum(working.get(i, {}).values()) for i in range(1 + max(working, default=-1))]}  # fmt: skip


@pytest.mark.parametrize("window", [300, 1 << 20])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_are_those_of_a_slow_count(pool: rtpool.Pool, seed: int, window: int) -> None:
    with rtpool.handler(pool):
        before = [np.empty(999, np.uint8) for _ in range(5)]
        with rtpool.record(pool=pool) as recording:
            del before[2:]
            wander(seed, 300, recording)
    file = recording.trace.file
    # Several chunks, so that windows end somewhere.
    found, slow = Analysis(file, window), slow_sums(file)
    for name, sums in slow["sums"].items():
        assert {place: int(found.sums[name][place]) for place in sums} == sums, name
        assert int(found.sums[name].sum()) == sum(sums.values()), name
    assert found.peak_bytes == slow["peak"]
    assert {place: int(size) for place, size in enumerate(found.peak_by_place) if size} == {
        place: size for place, size in slow["peak_places"].items() if size
    }
    assert found.iterations == 300
    assert found.working_set.tolist()[: len(slow["working"])] == slow["working"]
    assert found.unknown_frees == 0
    assert sum(found.handed_out.values()) == int(found.sums["bytes"].sum())


def test_windows_come_in_the_order_of_time(pool: rtpool.Pool) -> None:
    def work() -> None:
        with rtpool.handler(pool):
            for _ in range(3000):
                np.empty(100)

    with rtpool.record(pool=pool) as recording:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            joined(thread)
    file = recording.trace.file
    windows = list(file.windows(500))
    assert len(windows) > 1
    times = np.concatenate([window.time for window in windows])
    assert (np.diff(times) >= 0).all() and times.size == file.count == 24_000


def frame(image: np.ndarray) -> float:
    grey = image * 0.3
    edges = np.abs(grey[1:] - grey[:-1])
    return float(edges.max())


def test_lines_and_expressions(pool: rtpool.Pool) -> None:
    image = np.ones((300, 300))
    trace = traced(pool, lambda: frame(image))
    first = frame.__code__.co_firstlineno
    lines = {usage.line - first: usage for usage in trace.by_line() if usage.function == "frame"}
    assert lines[1].calls - lines[1].scalars == 20 and lines[1].bytes - 20 * image.nbytes < 20 * 17
    assert lines[1].source == "grey = image * 0.3"
    assert lines[1].temporaries == lines[1].calls and lines[1].most_at_once == 1
    assert lines[1].least_size == lines[1].largest_size == image.nbytes
    assert 0 < lines[1].lifetime <= lines[1].longest < 60
    assert trace.analysis.peak_bytes >= 2 * 299 * 300 * 8
    assert sum(usage.peak_bytes for usage in trace.peak()) == trace.analysis.peak_bytes
    if PYTHON_KEEPS_COLUMNS:
        sources = {usage.source for usage in trace.by_expression() if usage.function == "frame"}
        assert {"image * 0.3", "grey[1:] - grey[:-1]"} <= sources
    text = trace.summary()
    assert "20 iterations" in text and "resident" in text and "not seen: NumPy's iterator buffers" in text


def test_without_iterations_temporaries_are_those_of_a_line(pool: rtpool.Pool) -> None:
    a = np.ones(3000)
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        for _ in range(10):
            kept = a + 1
            total = (a * 2).sum()
    trace = recording.trace
    assert trace.analysis.unit == "line"
    by = {usage.source: usage for usage in trace.by_line()}
    assert by["total = (a * 2).sum()"].temporary_bytes >= 10 * a.nbytes
    assert by["kept = a + 1"].calls - by["kept = a + 1"].scalars == 10 and total and kept.size


def test_misses_have_a_reason(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        kept = [np.empty(100_000, np.uint8) for _ in range(3)]
        del kept[:]
        pool.trim()
        pool.freeze()
        refused = [np.empty(300_000_000, np.uint8)]
        pool.unfreeze()
    by = {miss.requested: miss for miss in recording.trace.misses()}
    assert (by[100_000].first, by[100_000].more_alive) == (1, 2)
    assert by[300_000_000].refused == by[300_000_000].total == 1
    del refused


def test_the_fit_does_not_miss(pool: rtpool.Pool) -> None:
    def work() -> None:
        small = [np.empty(n, np.uint8) for n in (1, 60, 64, 65, 700, 4000, 4032, 5000, 9000)]
        large = [np.empty(n, np.uint8) for n in (70_000, 70_000, 1_000_000)]
        del small, large
        np.zeros(12345)

    trace = traced(pool, work)
    fit = trace.fit()
    fitted = fit.pool(when_full="raise")
    before = fitted.stats()
    with rtpool.handler(fitted):
        for _ in range(20):
            work()
    after = fitted.stats()
    assert after.misses == before.misses and after.growths == before.growths
    assert fit.bytes == after.capacity_bytes
    with pytest.raises(MemoryError):
        rtpool.Pool(fit.bytes - mmap.PAGESIZE, limit=fit.bytes - mmap.PAGESIZE).prepare(fit.plan)


def test_the_fit_has_room_for_what_was_alive_before(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        before = [np.empty(50_000, np.uint8) for _ in range(3)]
        with rtpool.record(pool=pool) as recording:
            np.empty(50_000, np.uint8)
    assert [entry.most_alive for entry in recording.trace.fit().plan.entries if entry.requested == 50_000] == [4]
    del before


def test_a_copy_of_a_program_is_held_against_it_line_by_line(pool: rtpool.Pool, tmp_path: Path) -> None:
    text = "import numpy as np\n\ndef step(n):\n    a = np.empty(n)\n    b = a * 2\n    return b\n"
    traces = []
    for name, source in (("before.py", text), ("after.py", text.replace("a * 2", "np.multiply(a, 2, out=a)"))):
        path = tmp_path / name
        names = defined(source, path)
        traces.append(traced(pool, lambda names=names: names["step"](50_000)))
    found = {
        (one.after or one.before).source: one
        for one in traces[0].diff(traces[1])
        if (one.after or one.before).file.startswith(str(tmp_path))
    }
    same = found["a = np.empty(n)"]
    assert same.before and same.after and same.change("bytes") == 0
    gone = found["b = a * 2"]
    assert gone.after is None and gone.change("bytes") < 0


def test_whose_memory_an_event_is_about_goes_by_the_time() -> None:
    chance = random.Random(11)
    pools = []
    for number in range(30):
        begun = chance.randrange(0, 1000)
        ended = format.NEVER if chance.random() < 0.3 else begun + chance.randrange(400)
        first, size = chance.randrange(200), 16 * chance.randrange(1, 60)
        pools.append(PoolRange(str(number), first, size, size, begun=begun, ended=ended))
    rows = sorted((chance.randrange(1500), chance.randrange(280)) for _ in range(4000))

    def whose(time: int, address: int) -> int:
        owner = len(pools)
        changes = [(pool.begun, 0, number) for number, pool in enumerate(pools)]
        changes += [(pool.ended + 1, 1, number) for number, pool in enumerate(pools)]
        for when, ends, number in sorted(changes):
            pool = pools[number]
            if when > time or not pool.first <= address < pool.first + pool.bytes // 16:
                continue
            owner = number if not ends else len(pools) if owner == number else owner
        return owner

    owners = Owners(pools)
    for begin in range(0, len(rows), 700):  # windows
        time, address = np.array(rows[begin : begin + 700]).T
        found = owners.of(time, address.astype(np.uint64)).tolist()
        assert found == [whose(*row) for row in rows[begin : begin + 700]]
    # A trace of an earlier version does not say when: the last one of the same addresses has them all the time.
    old = Owners([PoolRange("a", 0, 320, 320), PoolRange("b", 10, 320, 320)])
    assert old.of(np.array([1, 2, 3]), np.array([5, 15, 40], np.uint64)).tolist() == [0, 1, 2]


def test_the_working_set_is_held_against_the_caches(pool: rtpool.Pool) -> None:
    def work() -> None:
        for _ in range(3):
            np.empty(100_000, np.uint8)  # the same memory three times

    work_set = traced(pool, work).working_set()
    assert work_set.iterations == 20
    assert work_set.median == 102_400
    assert work_set.level3 >= work_set.level2 > 0 and work_set.fits == "level2"
    assert work_set.handed_out["level2"] == 59 * 100_000 and work_set.handed_out["new"] == 100_000


def test_no_place_is_a_frame_of_the_interpreter_s_own(pool: rtpool.Pool) -> None:
    """Such lie below functions of NumPy that were called from C, and below `__init__`, once it is called often."""
    a = np.ones(4000)

    def step() -> None:
        a.sum()
        np.poly1d([1.0, 2.0, 3.0], False, "x")

    trace = traced(pool, step, turns=200)
    assert {usage.file for usage in trace.by_line() if usage.calls >= 100} == {__file__}


def test_diff_finds_what_changed(pool: rtpool.Pool) -> None:
    a = np.ones(4000)

    def before() -> None:
        (a + 1).sum()

    def after() -> None:
        (a + 1).sum()
        (a + 2).sum()

    first, second = traced(pool, before), traced(pool, after)
    found = first.diff(second)
    changed = [difference for difference in found if difference.change("bytes")]
    assert changed and all("after" in (d.after or d.before).function or "before" in (d.after or d.before).function
                           for d in changed)  # fmt: skip
    assert all(not difference.change("calls") for difference in first.diff(first))


def test_totals_answer_by_line(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool, mode="totals") as recording:
        kept = [np.empty(5000) for _ in range(100)]
        sleep(0.02)  # lifetimes of totals are read from a clock that goes on every 1 to 5 ms
        del kept
    usage = recording.trace.by_line()[0]
    assert (usage.calls, usage.bytes) == (100, 100 * 40_000) and usage.lifetime > 0


def test_json(pool: rtpool.Pool, tmp_path: Path) -> None:
    trace = traced(pool, lambda: np.ones(1000) * 2)
    trace.to_json(tmp_path / "trace.json")
    told = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert told["iterations"] == 20 and told["lines"] and told["resident_bytes"] > 0 and told["not_seen"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtpool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_command_line(tmp_path: Path, command: Command) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "a = np.ones(50_000)\nfor _ in range(50):\n    step(a, a)\n", encoding="utf-8")
    path = tmp_path / "trace"
    done = run("run", "--record", path, "--quiet", program)
    assert done.returncode == 0, done.stderr
    assert "program.py:5" in run("trace", "summary", path).stdout
    assert "program.py:6" in command("trace", "lines", path).out
    temporaries = command("trace", "temporaries", path).out
    if PYTHON_KEEPS_COLUMNS:
        assert "np.add(np.multiply(a, b, out=buffer" in temporaries
    assert command("trace", "misses", path).code == command("trace", "peak", path).code == 0
    plan = tmp_path / "plan.json"
    assert "rtpool.Pool(" in command("trace", "fit", path, "--plan", plan).out
    assert rtpool.Plan.load(plan).entries
    rows = list(csv.DictReader(io.StringIO(command("trace", "csv", path).out)))
    assert sum(int(row["calls"]) for row in rows) >= 250
    last = rows.pop()
    assert "resident at most" in last["function"] and "not seen: NumPy's iterator buffers" in last["function"]
    assert int(last["calls"]) == int(last["bytes"]) == 0 and not any("not seen" in row["function"] for row in rows)
    assert "no difference" in command("trace", "diff", path, path).out
    assert json.loads(command("trace", "summary", path, "--json").out)["lines"]
    for verb in ("lines", "temporaries", "misses", "fit"):
        told = json.loads(command("trace", verb, path, "--json").out)
        assert told[verb] and told["resident_bytes"] > 0 and told["not_seen"].startswith("not seen: ")
    for wrong in (("diff", path), ("lines", path, path), ("lines", program), ("lines", tmp_path / "none")):
        ended = command("trace", *wrong)
        assert ended.code == 2 and ended.err
