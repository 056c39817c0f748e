"""The lock-free parts of the core on 64-bit Arm: what src/blocks does, and that what it could leave out it needs.

    python -m pytest tests/litmus

Each protocol is written down as the core does it (the file and the order of memory stand beside it), and once more
with each order weakened: there the model must find an execution that breaks it, or the order is not needed.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import RMW, Event, Program, R, W, Waits, fence, membarrier, outcomes

Thread = Generator[Event, int, int]


# The model itself, against executions that are known to be allowed or forbidden on Arm.


def read(place: str, **order: bool) -> Program:
    def run() -> Thread:
        return (yield R(place, **order))

    return run


def test_store_buffering_needs_full_barriers() -> None:
    def side(mine: str, other: str, barrier: str, release: bool, acquire: bool) -> Program:
        def run() -> Thread:
            yield W(mine, 1, release=release)
            if barrier:
                yield fence(barrier)
            return (yield R(other, acquire=acquire))

        return run

    def both_zero(barrier: str = "", release: bool = False, acquire: bool = False) -> bool:
        threads = [side("x", "y", barrier, release, acquire), side("y", "x", barrier, release, acquire)]
        return any(outcome.answers == (0, 0) for outcome in outcomes(threads))

    assert (
        both_zero() and both_zero("load") and both_zero("store") and both_zero(release=True) and both_zero(acquire=True)
    )
    assert not both_zero("full")
    assert not both_zero(release=True, acquire=True)  # STLR before LDAR: this order costs the wait for the store


@pytest.mark.parametrize(
    ("release", "acquire", "weak", "barrier", "seen"),
    [
        (False, False, False, "", True),
        (True, False, False, "", True),
        (False, True, False, "", True),
        (True, True, False, "", False),
        (True, False, True, "", False),
        (True, False, False, "load", False),
    ],
)
def test_message_passing(release: bool, acquire: bool, weak: bool, barrier: str, seen: bool) -> None:
    def writer() -> Thread:
        yield W("data", 1)
        yield W("flag", 1, release=release)
        return 0

    def reader() -> Thread:
        flag = yield R("flag", acquire=acquire, weak_acquire=weak)
        if barrier:
            yield fence(barrier)
        data = yield R("data")
        return 10 * flag + data

    assert any(outcome.answers[1] == 10 for outcome in outcomes([writer, reader])) is seen


def test_stores_reach_all_others_at_once() -> None:
    """IRIW with acquires is forbidden: Arm is other-multi-copy atomic."""

    def observer(first: str, second: str) -> Program:
        def run() -> Thread:
            a = yield R(first, acquire=True)
            b = yield R(second, acquire=True)
            return 10 * a + b

        return run

    def store(place: str) -> Program:
        def run() -> Thread:
            yield W(place, 1)
            return 0

        return run

    seen = outcomes([store("x"), store("y"), observer("x", "y"), observer("y", "x")])
    assert not any(outcome.answers[2:] == (10, 10) for outcome in seen)


# blocks/heap_lock.hpp: HL-1. Owner and stranger add to `heap`; an update is lost where both are inside.


def lock_breaks(*, barrier: bool = True, fenced: bool = True, acquire: bool = False, left: bool = True,
                awaited: bool = True, resumed: bool = True) -> bool:  # fmt: skip
    def owner() -> Thread:
        entered = 0
        for _ in range(2):
            yield W("busy", 1)  # enter_fast
            attention = yield R("attention", acquire=acquire)
            if fenced:
                yield fence("load")
            if attention == 0:
                heap = yield R("heap")
                yield W("heap", heap + 1)
                entered += 1
            yield W("busy", 0, release=left)  # leave_fast
        return entered

    def stranger() -> Thread:
        yield RMW("attention", lambda bits: bits | 1, acquire=True, release=True)  # begin_stop
        if barrier:
            yield membarrier()
        if (yield R("busy", acquire=awaited)) != 0:  # await
            raise Waits
        heap = yield R("heap")
        yield W("heap", heap + 10)
        yield RMW("attention", lambda bits: bits & ~1, release=resumed)  # resume
        return 10

    return any(outcome["heap"] != sum(outcome.answers) for outcome in outcomes([owner, stranger]))


def test_the_heap_lock_excludes() -> None:
    assert not lock_breaks()


def test_the_heap_lock_excludes_with_an_acquire_as_well() -> None:
    """As on x86. On Arm it costs more: the LDAR waits for the STLR of the last leave, a barrier of loads does not."""
    assert not lock_breaks(fenced=False, acquire=True)


@pytest.mark.parametrize("order", ["barrier", "fenced", "left", "awaited", "resumed"])
def test_the_heap_lock_needs_each_of_its_orders(order: str) -> None:
    assert lock_breaks(**{order: False})


# blocks/heap.cpp: a block freed by another thread than its heap's, and what its owner finds when it drains.


def remote_free_breaks(*, push: bool = True, drain: bool = True) -> bool:
    def freer(number: int) -> Program:
        def run() -> Thread:
            yield W(f"block{number}", 7)  # the last the program wrote into it
            head = yield R("head")
            yield W(f"next{number}", 100 + head)
            seen = yield RMW("head", lambda _: number, release=push)
            if seen != head:
                raise Waits  # compare-and-swap failed: again
            return 0

        return run

    def owner() -> Thread:
        first = yield RMW("head", lambda _: 0, acquire=drain)
        wrong = 0
        for _ in range(2):
            if first == 0:
                break
            following = yield R(f"next{first}")
            block = yield R(f"block{first}")
            wrong += following < 100 or block != 7
            first = following - 100 if following >= 100 else 0
        return wrong

    return any(outcome.answers[2] for outcome in outcomes([freer(1), freer(2), owner]))


def test_remotely_freed_blocks_arrive_whole() -> None:
    assert not remote_free_breaks()


@pytest.mark.parametrize("order", ["push", "drain"])
def test_remote_frees_need_each_of_their_orders(order: str) -> None:
    assert remote_free_breaks(**{order: False})
