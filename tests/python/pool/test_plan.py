"""Learning and plans: what is recorded, that a plan makes the first iteration quiet, and that files are not trusted."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtpool
from rtpool import Plan, PlanEntry


def entries() -> list[PlanEntry]:
    return [PlanEntry(4096, 4000, 3, 30, 10), PlanEntry(64, 40, 2, 9, 0), PlanEntry(1 << 20, 1 << 20, 1, 5, 5)]


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def test_learning_records_the_most_alive_and_the_share_zeroed() -> None:
    pool = rtpool.Pool()
    with rtpool.handler(pool), pool.learn() as plan:
        assert plan.entries == () and not plan
        for _ in range(5):
            kept = [np.empty(100_000) for _ in range(3)]
            blank = np.zeros(50_000)
            del kept, blank
    by_request = {entry.requested: entry for entry in plan.entries}
    big, blank_entry = by_request[800_000], by_request[400_000]
    assert (big.most_alive, big.allocations, big.zeroed) == (3, 15, 0)
    assert (blank_entry.most_alive, blank_entry.allocations, blank_entry.zeroed) == (1, 5, 5)
    assert big.size >= 800_000 and big.size % 4096 == 0
    assert plan.peak_bytes >= 3 * 800_000 + 400_000
    assert plan.bytes >= plan.peak_bytes


def test_after_learning_the_pool_holds_what_was_learned() -> None:
    pool = rtpool.Pool()
    with rtpool.handler(pool):
        with pool.learn() as plan:
            arrays = [np.empty(300_000) for _ in range(4)]
            del arrays
        held = pool.stats()
        assert plan.bytes <= held.capacity_bytes and held.resident_bytes >= plan.bytes
        pool.freeze(on_miss="raise")
        held = pool.stats()
        again = [np.empty(300_000) for _ in range(4)]
        assert pool.stats().kernel_calls == held.kernel_calls
        with pytest.raises(MemoryError):
            np.empty(10_000_000)
        assert again[0] in pool
        pool.unfreeze()
    pool.check()


def test_learning_keeps_every_size() -> None:
    pool = rtpool.Pool()
    pool._begin_learning()
    with rtpool.handler(pool):
        for pages in range(1, 3001):
            np.empty(pages * 4096, np.uint8)
    learned = pool._end_learning()
    assert [size for size, *_ in learned if size % 4096 == 0] == [pages * 4096 for pages in range(1, 3001)]


def test_freezing_what_was_prepared_needs_nothing_more_of_the_kernel() -> None:
    pool = rtpool.Pool()
    pool.prepare(Plan(entries()))
    prepared = pool.stats().kernel_calls
    pool.freeze()
    assert pool.stats().kernel_calls == prepared
    pool.unfreeze()


def test_an_exception_ends_learning() -> None:
    pool = rtpool.Pool()
    with pytest.raises(ZeroDivisionError), pool.learn():
        raise ZeroDivisionError
    with pool.learn() as plan:
        pass
    assert not plan


def test_learning_twice_at_once_or_frozen_is_refused() -> None:
    pool = rtpool.Pool()
    with pool.learn(), pytest.raises(RuntimeError, match="learning already"), pool.learn():
        pass
    learning = pool.learn()
    with learning:
        pass
    with pytest.raises(RuntimeError, match="another one"), learning:
        pass
    pool.freeze()
    with pytest.raises(RuntimeError, match="frozen"), pool.learn():
        pass


def test_the_first_iteration_after_prepare_does_not_fault(tmp_path: Path) -> None:
    def step() -> None:
        image = np.ones((480, 640))
        canvas = np.zeros((480, 640))
        canvas += image * 2

    first = rtpool.Pool()
    with rtpool.handler(first), first.learn() as plan:
        step()
        step()
    plan.save(tmp_path / "plan.json")
    pool = rtpool.Pool()
    pool.prepare(Plan.load(tmp_path / "plan.json"))
    pool.freeze(on_miss="raise")
    with rtpool.handler(pool):
        before, calls = faults(), pool.stats().kernel_calls
        step()
        # A page fault or two may come from Python's own heap; one array alone would be six hundred.
        assert faults() - before < 5
        assert pool.stats().kernel_calls == calls


def test_prepare_refuses_what_the_pool_cannot_hold() -> None:
    pool = rtpool.Pool("1 MiB", limit="4 MiB")
    with pytest.raises(MemoryError, match="may hold 4 MiB"):
        pool.prepare(Plan([PlanEntry(1 << 20, 1 << 20, 100, 100, 0)]))
    with pytest.raises(TypeError, match=r"Plan\.load"):
        pool.prepare("plan.json")  # type: ignore[arg-type]
    pool.prepare(Plan())
    pool.check()


def test_plans_are_values() -> None:
    plan = Plan(entries(), peak_bytes=5)
    assert plan == Plan(reversed(entries())) and plan != Plan(entries()[1:]) and plan != 1
    assert [entry.size for entry in plan] == [64, 4096, 1 << 20] and len(plan) == 3
    assert plan.bytes == 3 * 4096 + 2 * 64 + (1 << 20)
    assert repr(plan) == "<rtpool.Plan: 3 sizes, 1 MiB>"
    assert str(plan).splitlines()[1].split()[0] == "1,048,576"
    with pytest.raises(TypeError):
        hash(plan)


def test_two_plans_make_one_that_serves_either() -> None:
    one = Plan([PlanEntry(64, 60, 2, 10, 1), PlanEntry(128, 100, 1, 1, 0)], peak_bytes=9)
    other = Plan([PlanEntry(64, 50, 5, 7, 3)], peak_bytes=11)
    both = one | other
    assert both.entries == (PlanEntry(64, 60, 5, 10, 3), PlanEntry(128, 100, 1, 1, 0))
    assert both.peak_bytes == 11
    with pytest.raises(TypeError):
        one | 3  # type: ignore[operator]


def test_files_round_trip(tmp_path: Path) -> None:
    plan = Plan(entries(), peak_bytes=77)
    path = tmp_path / "plan.json"
    path.write_text("old")
    plan.save(path)
    loaded = Plan.load(path)
    assert loaded == plan and loaded.peak_bytes == 77
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    assert json.loads(path.read_text())["version"] == 1
    Plan().save(str(path))
    assert Plan.load(str(path)) == Plan()


def document(**changes: object) -> str:
    data: dict[str, object] = {"format": "rtpool-plan", "version": 1, "peak_bytes": 0, "entries": []}
    return json.dumps(data | changes)


def entry(**changes: object) -> str:
    raw: dict[str, object] = {"size": 64, "requested": 64, "most_alive": 1, "allocations": 1, "zeroed": 0}
    return document(entries=[raw | changes])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        '{"format": "other"}',
        document(version=2),
        document(version=True),
        document(version="1"),
        document(entries={}),
        document(entries=None),
        document(entries=[1]),
        document(entries=[{}]),
        document(extra=1),
        document(peak_bytes=-1),
        document(peak_bytes=1.5),
        document(peak_bytes=None),
        document(peak_bytes=True),
        document().replace("0", "NaN"),
        document().replace('"version"', '"format"'),
        "[" * 100_000,
        '{"a":' * 100_000,
        entry(size=0),
        entry(size=-64),
        entry(size=1 << 47),
        entry(size=1 << 70),
        entry(size=64.0),
        entry(size="64"),
        entry(size=None),
        entry(size=[64]),
        entry(most_alive=-1),
        entry(most_alive=2),
        entry(zeroed=2),
        entry(requested=65),
        entry(allocations=1 << 63),
        entry(unknown=1),
        entry(size=1 << 46, most_alive=4, allocations=4),
        document(entries=[{"size": 64, "requested": 1, "most_alive": 0, "allocations": 0, "zeroed": 0}] * 2),
        document(peak_bytes=1).replace("1", "1" * 5000),
    ],
)
def test_nothing_in_a_file_is_trusted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no plan"):
        Plan.load(path)


def test_other_files_are_no_plans(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no plan"):
        Plan.load(path)
    path.write_bytes(b" " * (17 << 20))
    with pytest.raises(ValueError, match="more than 16 MiB"):
        Plan.load(path)
    with pytest.raises(OSError):
        Plan.load(tmp_path / "missing.json")
    with pytest.raises(OSError):
        Plan.load(tmp_path)


def test_a_plan_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(OSError):
        Plan(entries()).save(tmp_path / "plan.json")
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["format", "version", "entries", "peak_bytes", "size"]), inner)
        ),
    )
)
def test_no_json_raises_anything_but_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        Plan.from_json(json.dumps(value))


counts = st.integers(0, 1 << 20)


sizes = st.integers(1, 1 << 20)


@given(st.lists(st.tuples(sizes, counts, counts, counts, counts), max_size=8, unique_by=lambda raw: raw[0]))
def test_every_possible_plan_survives_a_file(raw: list[tuple[int, int, int, int, int]]) -> None:
    made = [PlanEntry(s, min(r, s), min(m, a), a, min(z, a)) for s, r, m, a, z in raw]
    plan = Plan(made)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan | plan == plan and plan | Plan() == plan
