"""Shared pools in traces: what this process makes in them, when it ends, and that reports name them apart."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest

import rtpool
from rtpool._trace import events as format
from rtpool._trace.by_pool import ELSEWHERE
from rtpool._trace.facts import facts
from rtpool._trace.sizes import granted_by_shared, granule_bytes


def events(recording: rtpool.record) -> format.Events:
    return format.join(list(recording.trace.file.windows()))


def only(found: format.Events, kind: int) -> format.Events:
    return found.take((found.kind & 3) == kind)


@pytest.fixture
def pool() -> Iterator[rtpool.SharedPool]:
    with rtpool.SharedPool.create("16 MiB") as made:
        yield made


def test_every_array_is_there_and_origin_knows_it(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        frame = np.zeros(5000)
        found = rtpool.origin(frame[10:])
        assert found is not None and found.file == __file__
        del frame
        image = np.empty(70_000, np.uint8)
    seen = events(recording)
    made = only(seen, format.ALLOCATE)
    assert made.size.tolist() == [40_000, 70_000]
    assert (made.kind & format.ZEROED != 0).tolist() == [True, False]
    assert only(seen, format.FREE).address.tolist() == made.address[:1].tolist()
    assert {recording.trace.file.place(place).file for place in made.place.tolist()} == {__file__}
    assert rtpool.origin(image) is None


def test_all_pools_means_shared_ones_too_also_those_made_meanwhile() -> None:
    private = rtpool.Pool(name="private")
    with rtpool.record() as recording, rtpool.SharedPool.create("1 MiB") as shared:
        with rtpool.handler(private):
            a = np.empty(1000)
        with rtpool.handler(shared):
            b = np.empty(3000)
    by = {usage.name: usage for usage in recording.trace.by_pool()}
    assert by["private"].bytes == 8000 and not by["private"].shared
    assert by["without a name"].bytes == 24_000 and by["without a name"].shared
    summary = recording.trace.summary()
    assert "without a name (shared with other processes)" in summary and "private" in summary
    del a, b


def test_reports_name_them_apart(pool: rtpool.SharedPool) -> None:
    private = rtpool.Pool(name="private")
    with rtpool.record() as recording:
        for number in recording.iterations(range(5)):
            with rtpool.handler(private):
                a = np.empty(1000 + number, np.uint8)
            with rtpool.handler(pool):
                b = [np.empty(300_000, np.uint8) for _ in range(2)]
            del a, b
    trace = recording.trace
    by = {usage.shared: usage for usage in trace.by_pool()}
    assert by[True].calls == 10 and by[True].bytes == 3_000_000 and by[True].peak_bytes == 600_000
    assert by[False].calls == 5 and by[False].peak_bytes == 1004
    misses = {miss.shared: miss for miss in trace.misses()}
    assert misses["without a name"].requested == 300_000 and misses["without a name"].first == 1
    assert misses["without a name"].more_alive == 1 and misses[""].requested <= 1024
    fit = trace.fit()
    assert fit.shared[0].name == "without a name" and 600_000 <= fit.shared[0].bytes < 700_000
    assert {entry.requested for entry in fit.plan.entries} <= set(range(1000, 1005))
    assert "rtpool.SharedPool.create(" in str(fit) and "rtpool.Pool(" in str(fit)
    assert trace.as_dict()["pools"][0]["shared"] is True
    assert any(name == "shared: without a name" for name, *_ in facts(trace))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16 MiB", "300 MiB", "1 GiB"])
def test_sizes_are_granted_as_the_pool_does(size: str) -> None:
    rng = np.random.default_rng(7)
    with rtpool.SharedPool.create(size, prefault=False) as pool, rtpool.handler(pool):
        granule = granule_bytes(pool.stats().capacity_bytes)
        asked = np.unique(np.exp(rng.uniform(0, np.log(4 << 20), 300)).astype(np.int64))
        asked = np.append(asked, [1, 64, 65, 1024, 1025, 2048, 2049, 4096, 4097, 65536, 65537, 69632, 131073])
        granted = granted_by_shared(asked, granule)
        before = pool.stats().own_bytes  # as each array leaves it
        for wanted, expected in zip(asked.tolist(), granted.tolist(), strict=True):
            array = np.empty(wanted, np.uint8)
            assert pool.stats().own_bytes - before == expected, wanted
            del array


def test_a_pool_of_the_fitting_size_serves_it_all() -> None:
    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept: list[np.ndarray] = []
        for _ in range(600):
            kept.append(np.empty(int(rng.choice([100, 900, 5000, 33_000, 70_000, 400_000])), np.uint8))
            while len(kept) > 20:
                del kept[int(rng.integers(len(kept)))]

    with rtpool.SharedPool.create("64 MiB") as roomy, rtpool.handler(roomy), rtpool.record(pool=roomy) as recording:
        work(3)
    (needed,) = recording.trace.fit().shared
    with rtpool.SharedPool.create(needed.bytes) as fitting, rtpool.handler(fitting):
        work(3)
        assert fitting.stats().failures == 0


def _hold(handle: Any, said: Any, go: Any) -> None:
    array = handle.open()
    said.put(float(array.sum()))
    go.wait()


def test_a_block_ends_when_the_last_process_drops_it(pool: rtpool.SharedPool) -> None:
    context = multiprocessing.get_context("spawn")
    said, go = context.Queue(), context.Event()
    with rtpool.record(pool=pool) as recording:
        with rtpool.handler(pool):
            array = np.ones(100_000)
        worker = context.Process(target=_hold, args=(pool.share(array), said, go))
        worker.start()
        assert said.get(timeout=60) == 100_000
        block = array.ctypes.data // 16
        del array  # the other process has it open
        with recording.span("held"):
            pass
        go.set()
        worker.join(60)
        assert worker.exitcode == 0
        with recording.span("dropped"):
            pass
        pool.trim()  # who asks is told
    seen = events(recording)
    end = int(np.flatnonzero((seen.kind & 3 == format.FREE) & (seen.address == block))[0])
    dropped = int(np.flatnonzero((seen.kind & 3 == format.MARK) & (seen.size == 2))[0])
    assert end > dropped
    assert seen.kind[end] & format.REMOTE and seen.place[end] == 0
    assert recording.trace.analysis.live_bytes == 0


def test_what_it_passes_on_is_named(pool: rtpool.SharedPool) -> None:
    with rtpool.SharedPool.create("1 MiB", when_full="fallback") as small, rtpool.handler(small):
        with rtpool.record(pool=small) as recording:
            large = np.empty(3 << 20, np.uint8)
            del large
        by = {usage.name: usage for usage in recording.trace.by_pool()}
        assert by[ELSEWHERE].bytes == 3 << 20 and by[ELSEWHERE].misses == 1
        assert recording.trace.analysis.live_bytes == 0


def test_memory_it_passed_on_comes_back_to_it_when_activated() -> None:
    """NumPy's default handler is asked to free it, whichever way it was made."""
    with rtpool.SharedPool.create("1 MiB", when_full="fallback") as small:
        rtpool.activate(small)
        try:
            large = np.empty(3 << 20, np.uint8)
            assert small.stats().fallback_count == 1
            large.resize(4 << 20, refcheck=False)
            assert small.stats().fallback_count == 1
            del large
            assert small.stats().fallback_count == 0
        finally:
            rtpool.deactivate()
        assert small.stats().misuses == 0


def test_totals_of_a_shared_pool(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool), rtpool.record(pool=pool, mode="totals") as recording:
        for _ in range(50):
            np.zeros(1000)
    totals = [total for total in recording.trace.file.totals if total.calls]
    assert sum(total.calls for total in totals) == sum(total.frees for total in totals) == 50
    assert sum(total.freed_bytes for total in totals) == 400_000


@pytest.mark.parametrize("mode", ["events", "totals"])
def test_a_pool_first_used_in_a_section_takes_no_page_fault(mode: Literal["events", "totals"]) -> None:
    def frame() -> float:
        arrays = [np.zeros(count) for count in (10, 100, 500, 5000, 40_000)]
        return sum(float(array.sum()) for array in arrays)

    def faults() -> list[Any]:
        """Of a pool, or of memory without a name, as its tables and the recorder's are; others have their own."""
        with rtpool.SharedPool.create("64 MiB") as known, rtpool.SharedPool.create("64 MiB") as new:
            with rtpool.record(mode=mode) as recording, rtpool.realtime(0.001, warmup=3) as rt:
                for turn, _ in enumerate(rt):
                    with rtpool.handler(known if turn < 6 else new):
                        frame()
                    if turn == 11:
                        rt.stop()
            assert new.stats().total_count >= 6 * 5
        assert recording.report.lost == 0
        return [origin for origin in rt.report.fault_origins if origin.kind in ("pool", "other")]

    # A kernel short of contiguous memory moves resident pages, and whoever comes meanwhile faults: not twice.
    assert faults() == [] or faults() == []


def test_pools_that_had_the_same_addresses_are_told_apart() -> None:
    """What is unmapped the next pool gets: whose an event is goes by its time."""
    places = set()
    with rtpool.record() as recording:
        for number in range(1, 6):
            with rtpool.SharedPool.create("1 MiB", name=f"rtpool-test-{number}") as shared, rtpool.handler(shared):
                array = np.empty(1000 * number, np.uint8)
                places.add(array.ctypes.data)
                del array
                shared.unlink()
        for number in range(1, 6):
            pool = rtpool.Pool(name=f"private {number}")
            with rtpool.handler(pool):
                array = np.empty(100 * number, np.uint8)
                places.add(array.ctypes.data)
                del array, pool
    assert len(places) < 10  # or nothing is tested here
    by = {usage.name: usage.bytes for usage in recording.trace.by_pool()}
    expected = {f"rtpool-test-{number}": 1000 * number for number in range(1, 6)}
    assert by == expected | {f"private {number}": 100 * number for number in range(1, 6)}
    for usage in recording.trace.by_pool():
        assert usage.calls == 1 and usage.peak_bytes == usage.bytes


def test_only_pools_can_be_recorded() -> None:
    with pytest.raises(TypeError, match=r"rtpool\.Pool or rtpool\.SharedPool"):
        rtpool.record(pool="frames")
