"""Statistics are values: they print a table that adds up, subtract, compare and cannot be changed."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import rtpool
from rtpool import Stats, _core
from rtpool._pool.objects import refusal


def test_fields_are_those_of_the_core() -> None:
    assert Stats._fields == _core.STATS_FIELDS


def test_counters_count(pool: rtpool.Pool) -> None:
    start = pool.stats()
    assert start.capacity_bytes >= 16 << 20
    with rtpool.handler(pool):
        arrays = [np.empty(1000, np.uint8) for _ in range(5)]
    during = pool.stats() - start
    assert (during.current_count, during.total_count, during.requested_bytes) == (5, 5, 5000)
    assert 5000 <= during.current_bytes <= 5000 * 1.125
    assert during.hits + during.misses == 5
    del arrays
    after = pool.stats() - start
    assert (after.current_count, after.current_bytes, after.requested_bytes, after.total_count) == (0, 0, 0, 5)
    assert pool.stats().peak_count >= 5
    pool.reset_peak()
    assert pool.stats().peak_count == 0


def test_the_hits_of_a_loop(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        for _ in range(3):
            np.empty(100_000)
        before = pool.stats()
        for _ in range(100):
            np.empty(100_000)
        steady = pool.stats() - before
    assert (steady.hits, steady.misses, steady.growths, steady.total_count) == (100, 0, 0, 100)


def test_subtraction_equality_and_hash() -> None:
    later, earlier = Stats(hits=5, misses=2), Stats(hits=3)
    assert later - earlier == Stats(hits=2, misses=2)
    assert hash(later) == hash(Stats(hits=5, misses=2))
    assert later != earlier
    with pytest.raises(TypeError):
        later - 1  # type: ignore[operator]


def test_they_are_frozen_and_travel() -> None:
    stats = Stats(hits=5)
    with pytest.raises(AttributeError):
        stats.hits = 6  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(stats)) == copy.copy(stats) == stats


def _column(table: str) -> dict[str, int]:
    lines = [line for line in table.splitlines() if line.strip()]
    found = [re.match(r"( *\S.*?)  +(-?[\d,]+)", line) for line in lines]
    return {match[1].strip(): int(match[2].replace(",", "")) for match in found if match}


def test_the_table_adds_up(pool: rtpool.Pool) -> None:
    small = rtpool.Pool("1 MiB", limit="1 MiB", when_full="fallback")
    with rtpool.handler(small):
        kept = [np.empty(n) for n in (10, 1000, 30_000, 1_000_000)]
    for tested in (pool, small):
        column = _column(str(tested.stats()))
        held = column["asked for by live arrays"] + column["rounding of these"] + column["free"]
        assert column["memory held"] == held
        assert column["requests"] == column["hits"] + column["misses"]
        ways = column["of these served by the pool"] + column["by the default allocator"] + column["not at all"]
        assert column["requests"] == ways
        assert column["of these served by the pool"] == tested.stats().total_count
    assert small.stats().fallbacks == small.stats().fallback_count == 1
    del kept


@pytest.mark.skipif(refusal() is not None, reason=f"arenas are not asked for: {refusal()}")
def test_the_table_adds_up_with_pythons_objects_in_it() -> None:
    small = rtpool.Pool(limit="16 MiB")  # a quarter of it for objects: some arenas Python has to serve itself
    kept = []
    with rtpool.realtime(pool=small, warmup=2, iterations=2) as rt:
        for _ in rt:
            kept.append([{"i": i, "v": (i, float(i))} for i in range(30_000)])
            array = np.ones(1000)
    stats = small.stats()
    column = _column(str(stats))
    parts = ("asked for by live arrays", "rounding of these", "arenas of objects", "free")
    assert column["memory held"] == sum(column[part] for part in parts)
    assert column["arenas of objects"] == stats.object_bytes > 0
    assert column["free"] >= stats.object_kept_bytes
    assert column["asked for by live arrays"] == 8000 and stats.current_count == 1
    asked = column["kept ones"] + column["new ones"] + column["by Python's own allocator"]
    assert column["requests for arenas"] == asked
    assert column["by Python's own allocator"] == stats.object_fallbacks > 0
    del kept, array
