"""What `rtpool.record` promises: what is in a trace, when it begins and ends, and what it leaves alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from waits import exit_code, joined

import rtpool
from rtpool._trace import events as format


def events(recording: rtpool.record) -> format.Events:
    return format.join(list(recording.trace.file.windows()))


def only(found: format.Events, kind: int) -> format.Events:
    return found.take((found.kind & 3) == kind)


@pytest.fixture
def pool() -> rtpool.Pool:
    return rtpool.Pool(name="recorded")


def test_every_array_is_there_with_its_size_and_expression(pool: rtpool.Pool) -> None:
    a = np.ones(1000)
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        b = a * 2 + np.sqrt(a)
        c = np.zeros(300)
    found = events(recording)
    made = only(found, format.ALLOCATE)
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    texts = set()
    for place in made.place.tolist():
        at = recording.trace.file.places[place]
        assert at.file == __file__ and at.function.endswith("expression")
        texts.add(source[at.line - 1][at.column : at.end_column])
    if sys.version_info >= (3, 11):
        assert texts == {"a * 2", "np.sqrt(a)", "np.zeros(300)"} or texts == {
            "a * 2",
            "np.sqrt(a)",
            "a * 2 + np.sqrt(a)",
            "np.zeros(300)",
        }
    assert made.size[-1] == 2400 and made.kind[-1] & format.ZEROED
    assert recording.report.complete
    assert recording.trace.file.pools and next(iter(recording.trace.file.pools.values())).name == "recorded"
    del b, c


def test_counts_agree_with_the_statistics(pool: rtpool.Pool) -> None:
    rng = np.random.default_rng(3)
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        before = pool.stats()
        kept = [np.empty(int(n), np.uint8) for n in rng.integers(1, 200_000, 500)]
        kept = kept[::2]
        kept += [np.zeros(int(n), np.uint8) for n in rng.integers(1, 200_000, 500)]
        after = pool.stats()
    made = only(events(recording), format.ALLOCATE)
    outcome = made.kind >> 2 & 3
    assert made.kind.size >= after.total_count - before.total_count
    assert (outcome == format.MISS).sum() == after.misses - before.misses
    del kept


def test_what_is_alive_before_comes_first(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        before = [np.empty(n, np.uint8) for n in (10, 5000, 100_000)]
        with rtpool.record(pool=pool) as recording:
            del before[1]
    found = events(recording)
    assert sorted(only(found, format.ALIVE).size.tolist()) == [10, 5000, 100_000]
    freed = only(found, format.FREE).address
    alive = only(found, format.ALIVE)
    assert alive.size[np.isin(alive.address, freed)].tolist() == [5000]


def test_iterations_and_spans_are_marked(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        for number in recording.iterations(range(5)):
            if number == 3:
                break
            with recording.span("work"):
                np.ones(100)
    found = only(events(recording), format.MARK)
    kinds = (found.kind >> 2 & 15).tolist()
    assert kinds.count(format.ITERATION_BEGIN) == kinds.count(format.ITERATION_END) == 4
    assert kinds.count(format.SPAN_BEGIN) == kinds.count(format.SPAN_END) == 3
    assert recording.trace.file.spans == {1: "work"}


def test_ticks_of_a_section_are_marked(pool: rtpool.Pool) -> None:
    with rtpool.record(pool=pool) as recording, rtpool.realtime("1 ms", pool=pool, warmup=3, gc="keep") as section:
        for _ in section:
            np.ones(5000)
            if section.report.iterations >= 9:
                section.stop()
    found = only(events(recording), format.MARK)
    kinds = (found.kind >> 2 & 15).tolist()
    assert kinds.count(format.TICK_BEGIN) == kinds.count(format.TICK_END) == 10
    assert recording.report.lost == 0


def test_whole_stacks(pool: rtpool.Pool) -> None:
    def deep(n: int) -> np.ndarray:
        return np.empty(700) if n == 0 else deep(n - 1)

    with rtpool.handler(pool), rtpool.record(pool=pool, stacks="full") as recording:
        deep(10)
        deep(10)
    trace = recording.trace.file
    made = only(events(recording), format.ALLOCATE)
    number = int(made.place[0])
    functions = []
    while number:
        number, place = trace.stacks[number]
        functions.append(trace.places[place].function)
    assert sum("deep" in function for function in functions) == 11
    assert len(set(made.place.tolist())) >= 2  # two lines of this test


def test_frees_by_other_threads_and_threads_of_their_own(pool: rtpool.Pool) -> None:
    made: list[np.ndarray] = []

    def produce() -> None:
        with rtpool.handler(pool):
            made.extend(np.empty(3000) for _ in range(50))

    with rtpool.record(pool=pool) as recording:
        thread = threading.Thread(target=produce)
        thread.start()
        joined(thread)
        made.clear()
    found = events(recording)
    freed = only(found, format.FREE)
    assert (freed.kind & format.REMOTE != 0).sum() == 50
    assert len(set(found.thread.tolist())) == 2


def test_frees_in_a_finalizer_and_by_the_collector(pool: rtpool.Pool) -> None:
    class Holder:
        pass

    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        holder = Holder()
        holder.self, holder.array = holder, np.empty(2000)
        weakref.finalize(holder, np.empty, 10)
        del holder
        gc.collect()
    found = events(recording)
    assert len(only(found, format.FREE)) == len(only(found, format.ALLOCATE)) == 2


def test_a_realloc_is_a_free_and_an_allocation(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        array = np.empty(100, np.uint8)
        array.resize(200_000, refcheck=False)
    found = events(recording)
    resized = only(found, format.ALLOCATE)
    assert resized.size.tolist() == [100, 200_000]
    assert (resized.kind & format.RESIZE != 0).tolist() == [False, True]


def test_origin_while_recording_and_not_after(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        early = np.empty(10)
        with rtpool.record(pool=pool):
            array = np.zeros((30, 30))
            view = array[3:, ::2]
            found = rtpool.origin(view)
            assert found is not None and found.file == __file__ and found.function.endswith("not_after")
            assert found.line == rtpool.origin(array).line and 0 <= found.age < 60
            assert rtpool.origin(early) is None
            assert rtpool.origin(np.frombuffer(b"12345678")) is None
        assert rtpool.origin(array) is None
    with pytest.raises(TypeError, match="NumPy array"):
        rtpool.origin([1, 2])


def test_one_recording_at_a_time(pool: rtpool.Pool) -> None:
    with rtpool.record(pool=pool), pytest.raises(RuntimeError, match="one recording at a time"), rtpool.record():
        pass
    recording = rtpool.record(pool=pool)
    for _ in range(2):  # again, from the begin
        with recording, rtpool.handler(pool):
            np.empty(5)
        assert recording.report.events == 2


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stacks must be one of"):
        rtpool.record(stacks="all")
    with pytest.raises(ValueError, match="mode must be one of"):
        rtpool.record(mode="all")
    with pytest.raises(TypeError, match="pool must be"):
        rtpool.record(pool=3)
    with pytest.raises(OSError), rtpool.record(tmp_path / "no" / "where"):
        pass
    with rtpool.record(tmp_path / "trace"):
        pass
    recording = rtpool.record(tmp_path / "trace")
    with pytest.raises(RuntimeError, match="has not begun"):
        recording.report  # noqa: B018
    with pytest.raises(RuntimeError, match="not over"):
        recording.trace  # noqa: B018


def test_a_full_disk_is_told(pool: rtpool.Pool) -> None:
    with pytest.raises(OSError), rtpool.record("/dev/full", pool=pool):
        pass


def test_a_child_is_not_recorded_and_leaves_the_file_alone(pool: rtpool.Pool, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with rtpool.handler(pool), rtpool.record(path, pool=pool) as recording:
        kept = np.empty(100)
        child = os.fork()
        if child == 0:
            try:
                del kept
                for _ in range(10_000):
                    np.ones(50)
                recording.__exit__(None, None, None)
                with rtpool.record(tmp_path / "child", pool=pool):
                    np.ones(50)
                os._exit(0)
            finally:
                os._exit(1)
        assert exit_code(child) == 0
    assert recording.trace.file.complete
    assert recording.report.events == 1
    assert len(only(events(recording), format.ALLOCATE)) == 1
    assert rtpool.Trace.load(tmp_path / "child").file.count >= 2


SCRIPT = """
import os, signal, sys
import numpy as np, rtpool
recording = rtpool.record(sys.argv[1])
with rtpool.handler(), recording:
    for number in range(200_000):
        np.empty(1000)
    {end}
"""


@pytest.mark.parametrize(("end", "complete"), [("os.kill(os.getpid(), signal.SIGKILL)", False), ("os._exit(0)", False),
                                               ("sys.exit(3)", True)])  # fmt: skip
def test_a_process_that_ends_suddenly_loses_at_most_its_last_chunk(tmp_path: Path, end: str, complete: bool) -> None:
    path = tmp_path / "trace"
    # The writer looks every 10 ms; the loop goes on until it has written all full chunks but the last ones.
    script = SCRIPT.format(end=f"import time; time.sleep(0.2); {end}")
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=120)
    trace = rtpool.Trace.load(path)
    assert trace.file.complete is complete
    found = format.join(list(trace.file.windows()))
    assert 400_000 - 4096 <= len(found) <= 400_002
    assert trace.file.places


def test_a_recording_that_is_not_closed_ends_with_the_process(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    script = "import sys, numpy as np, rtpool\nrtpool.handler().__enter__()\n"
    script += "rtpool.record(sys.argv[1]).__enter__()\nnp.ones(10)\n"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=120)
    trace = rtpool.Trace.load(path)
    assert trace.file.complete and trace.file.count >= 1


def test_the_limit_is_kept_and_told(pool: rtpool.Pool, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with rtpool.handler(pool), rtpool.record(path, pool=pool, limit="100 KiB") as recording:
        for _ in range(50_000):
            np.empty(100)
    assert path.stat().st_size < 110 << 10
    report = recording.report
    assert report.lost_by_limit > 0 and not report.complete
    assert report.events + report.lost_by_limit == 100_000


def test_a_ring_keeps_what_came_last(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool, mode="ring", limit="100 KiB") as recording:
        for _ in recording.iterations(range(30_000)):
            np.empty(100)
    found = only(events(recording), format.MARK)
    numbers = found.size[(found.kind >> 2 & 15) == format.ITERATION_END]
    assert recording.report.dropped > 0 and recording.report.complete
    assert numbers[-1] == 29_999 and numbers[0] > 20_000


def test_totals_take_no_room_for_time(pool: rtpool.Pool, tmp_path: Path) -> None:
    sizes = []
    for turns in (100, 20_000):
        with rtpool.handler(pool), rtpool.record(tmp_path / "trace", pool=pool, mode="totals") as recording:
            for _ in range(turns):
                np.zeros(100)
        totals = [total for total in recording.trace.file.totals if total.calls]
        # One expression may be several instructions: the interpreter changes them as they get warm.
        sums = [sum(column) for column in zip(*totals, strict=True)]
        assert len(totals) <= 3
        assert sums[1:5] == [turns, 800 * turns, turns, 800 * turns] and sums[9] == turns
        sizes.append(recording.report.bytes)
    assert sizes[1] - sizes[0] < 2000  # samples of the process, two a second at most


def test_a_frozen_pool_is_recorded_without_the_kernel(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        with pool.learn():
            np.ones(5000) * 2
        np.ones(5000) * 2
        pool.freeze()
        before = pool.stats()
        for _ in range(1000):
            np.ones(5000) * 2
        pool.unfreeze()
        after = pool.stats()
    assert after.kernel_calls == before.kernel_calls and after.misses == before.misses
    assert recording.report.lost == 0
    assert recording.report.events >= 4000


def test_a_debug_pool_is_recorded() -> None:
    pool = rtpool.Pool(debug=True)
    with rtpool.handler(pool):
        kept = np.empty(123, np.uint8)
        with rtpool.record(pool=pool) as recording:
            np.empty(4567, np.uint8)
    found = events(recording)
    assert only(found, format.ALIVE).size.tolist() == [123]
    assert only(found, format.ALLOCATE).size.tolist() == [4567]
    del kept


def test_recording_leaves_the_pool_sound(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        kept = [np.ones(n) for n in range(1, 3000, 7)]
        for mode in ("events", "totals", "ring"):
            with rtpool.record(pool=pool, mode=mode):
                kept = [a + 1 for a in kept]
    pool.check()
    del kept
    assert pool.stats().current_count == 0


def test_what_is_committed_for_a_recording_goes_by_what_the_pool_holds() -> None:
    # Whoever locks all memory of the process locks it (`lock_process=True`), touched or not.
    def writable() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))

    pool = rtpool.Pool()  # has addresses for several times the machine's memory
    before = writable()
    with rtpool.record(pool=pool), rtpool.handler(pool):
        kept = [np.ones(100) for _ in range(100)]
        assert writable() - before < 64 << 20
        assert all(rtpool.origin(a) is not None for a in kept)
