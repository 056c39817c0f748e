"""The lock-free parts of the core on 64-bit Arm: what the heaps do, and that what they could leave out they need.

    python -m pytest tests/litmus

Each protocol is written down as the core does it (the file and the order of memory stand beside it), and once more
with each order weakened: there the model must find an execution that breaks it, or the order is not needed.

Heaps are here, what is looked at without a lock in test_published.py, shared memory in test_shared_litmus.py. Without a
program of their own are: what is written once and then published by a release (heaps, streams, descriptors of slabs,
tables of places), which is the message passing below; counters and hints that decide nothing, which are relaxed; and
what a lock orders.
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


# os/biased_lock.hpp: HL-1. Owner and stranger add to `heap`; an update is lost where both are inside.


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


# pages/run_lock.hpp: RL-1. The bias ends for good: who ends it, and whoever comes after, goes in without another look
# at `busy`, as a thread that believes itself favoured sees the bit that stays.


def end_of_bias_breaks(*, barrier: bool = True, left: bool = True, awaited: bool = True, stays: bool = True) -> bool:
    def favoured() -> Thread:
        if (yield R("favoured")) != 1:
            raise Waits  # the mutex, which the other one holds
        yield W("busy", 1)  # enter
        attention = yield R("attention")
        yield fence("load")
        entered = attention == 0
        if entered:
            runs = yield R("runs")
            yield W("runs", runs + 1)
        yield W("busy", 0, release=left)
        return int(entered)

    def ends() -> Thread:  # share, and a turn under the mutex alone
        yield RMW("attention", lambda bits: bits | 1, acquire=True, release=True)
        if barrier:
            yield membarrier()
        if (yield R("busy", acquire=awaited)) != 0:
            raise Waits
        yield W("favoured", 0)
        if stays:
            yield RMW("attention", lambda bits: bits | 2, release=True)
        yield RMW("attention", lambda bits: bits & ~1, release=True)
        runs = yield R("runs")
        yield W("runs", runs + 10)
        return 10

    return any(outcome["runs"] != sum(outcome.answers) for outcome in outcomes([favoured, ends], {"favoured": 1}))


def test_the_run_lock_excludes_when_its_bias_ends() -> None:
    assert not end_of_bias_breaks()


@pytest.mark.parametrize("order", ["barrier", "left", "awaited", "stays"])
def test_the_end_of_a_bias_needs_each_of_its_orders(order: str) -> None:
    assert end_of_bias_breaks(**{order: False})


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


def slab_breaks(*, freed: bool = True, joined: bool = True, listed: bool = True, taken: bool = True,
                given: bool = True) -> bool:  # fmt: skip
    """Small blocks: a slab is on the list from the first free until its owner takes the blocks, and may come again."""

    def frees() -> Thread:  # Heap::free_remote: the first of its slab
        if (yield RMW("remote", lambda blocks: blocks | 1, acquire=True, release=True)) != 0:
            raise Waits
        yield W("next", 100)
        yield RMW("list", lambda _: 1, release=listed)
        return 0

    def frees_later() -> Thread:  # the second, or the first again where the owner has been there
        yield W("block", 7)
        if (yield RMW("remote", lambda blocks: blocks | 2, acquire=joined, release=freed)) == 0:
            yield W("next", 200)
        return 0

    def owner() -> Thread:  # drain_some, drain_slab
        if (yield RMW("list", lambda _: 0, acquire=listed)) != 1:
            raise Waits
        following = yield R("next")
        blocks = yield RMW("remote", lambda _: 0, acquire=taken, release=given)
        if following != 100:
            return 1
        return 1 if blocks & 2 and (yield R("block")) != 7 else 0

    found = outcomes([frees, frees_later, owner])
    assert found
    return any(outcome.answers[2] for outcome in found)


def test_small_blocks_freed_remotely_arrive_whole() -> None:
    assert not slab_breaks()


@pytest.mark.parametrize("order", ["freed", "joined", "listed", "taken", "given"])
def test_small_remote_frees_need_each_of_their_orders(order: str) -> None:
    assert slab_breaks(**{order: False})


def outgoing_breaks(*, told: bool = True, taken: bool = True) -> bool:
    """A block that waits in the heap of who freed it: its state is written plainly, twice, before the owner is told."""
    live, outgoing, free = 1, 2, 3

    def frees() -> Thread:  # Heap::free_later, send_outgoing
        yield W("block", 7)
        if (yield R("state")) != live:
            raise Waits
        yield W("state", outgoing)
        if (yield R("state")) != outgoing:
            return 1
        yield W("state", free)
        yield RMW("remote", lambda blocks: blocks | 1, acquire=True, release=told)
        return 0

    def owner() -> Thread:  # drain_slab, and the block is handed out again
        if (yield RMW("remote", lambda _: 0, acquire=taken, release=True)) != 1:
            raise Waits
        yield W("state", live)
        return (yield R("block")) != 7

    found = outcomes([frees, owner], {"state": live})
    assert found
    return any(any(outcome.answers) or outcome["state"] != live for outcome in found)


def test_a_block_that_waited_to_be_told_is_the_owner_s_alone() -> None:
    assert not outgoing_breaks()


@pytest.mark.parametrize("order", ["told", "taken"])
def test_telling_needs_each_of_its_orders(order: str) -> None:
    assert outgoing_breaks(**{order: False})


# os/gate.hpp: a thread frees a block of a heap that it does not own, and another one forks.
CLOSED = 64


def half_freed(*, left: bool = True, awaited: bool = True) -> bool:
    def frees() -> Thread:
        if (yield RMW("state", lambda word: word + 1, acquire=True)) & CLOSED:
            raise Waits
        yield W("state of the block", 1)
        yield W("list", 1)
        yield RMW("state", lambda word: word - 1, release=left)
        return 0

    def forks() -> Thread:
        yield RMW("state", lambda word: word | CLOSED)
        if (yield R("state", acquire=awaited)) != CLOSED:
            raise Waits
        return (yield R("state of the block")) - (yield R("list"))

    found = outcomes([frees, forks])
    assert found
    return any(outcome.answers[1] for outcome in found)


def test_no_block_is_freed_by_half_where_a_process_forks() -> None:
    assert not half_freed()


@pytest.mark.parametrize("order", ["left", "awaited"])
def test_closing_the_gate_needs_each_of_its_orders(order: str) -> None:
    assert half_freed(**{order: False})


def gate_leaks(*, opened: bool = True, entered: bool = True) -> bool:
    def forked() -> Thread:
        yield W("data", 1)
        yield RMW("state", lambda word: word & ~CLOSED, release=opened)
        return 0

    def frees() -> Thread:
        if (yield RMW("state", lambda word: word + 1, acquire=entered)) & CLOSED:
            raise Waits
        return (yield R("data"))

    found = outcomes([forked, frees], {"state": CLOSED})
    assert found
    return any(outcome.answers[1] != 1 for outcome in found)


def test_who_finds_the_gate_open_sees_what_was_done_behind_it() -> None:
    assert not gate_leaks()


@pytest.mark.parametrize("order", ["opened", "entered"])
def test_opening_the_gate_needs_each_of_its_orders(order: str) -> None:
    assert gate_leaks(**{order: False})


# pool/idle.cpp: a pool goes to rest. Its owner's use is seen by the one who looks, or sees that it has to tell.


def rest_breaks(*, barrier: bool = True, fenced: bool = True, told: bool = True, left: bool = True,
                awaited: bool = True, loaded: bool = True) -> bool:  # fmt: skip
    def owner() -> Thread:  # a hit, or notice()
        yield W("busy", 1)
        attention = yield R("attention")
        if fenced:
            yield fence("load")
        if attention == 0:
            yield W("count", 1)
            yield W("busy", 0, release=left)
            return 1
        return 2 if (yield R("resting")) else 3

    def looks() -> Thread:  # look, settled
        yield W("resting", 1)
        yield RMW("attention", lambda bits: bits | 1, release=told)
        if barrier:
            yield membarrier()
        if loaded and (yield R("busy", acquire=awaited)) != 0:
            return 1  # in use
        return (yield R("count"))

    found = outcomes([owner, looks])
    # Used, and nobody knows of it; or told of the bit, and nothing found to tell.
    return any(outcome.answers in ((1, 0), (3, 0), (3, 1)) for outcome in found)


def test_no_use_of_a_pool_that_rests_is_overlooked() -> None:
    assert not rest_breaks()


@pytest.mark.parametrize("order", ["barrier", "fenced", "told", "left", "awaited", "loaded"])
def test_resting_needs_each_of_its_orders(order: str) -> None:
    assert rest_breaks(**{order: False})


# os/priority_lock.hpp, without its kernel calls.


def turns_break(*, locked: bool = True, unlocked: bool = True) -> bool:
    def turn() -> Thread:
        if (yield RMW("word", lambda _: 1, acquire=locked)) != 0:
            raise Waits
        value = yield R("value")
        yield W("value", value + 1)
        yield RMW("word", lambda _: 0, release=unlocked)
        return 0

    found = outcomes([turn, turn])
    assert found
    return any(outcome["value"] != 2 for outcome in found)


def test_turns_follow_each_other() -> None:
    assert not turns_break()


@pytest.mark.parametrize("order", ["locked", "unlocked"])
def test_turns_need_each_of_their_orders(order: str) -> None:
    assert turns_break(**{order: False})


def sleeper_missed(*, counted: bool = True, seen: bool = True) -> bool:
    """Whether a thread marks the lock's word and sleeps, and who finds the mark does not find that anybody sleeps."""

    def sleeps() -> Thread:
        yield RMW("asleep", lambda count: count + 1)
        return (yield RMW("word", lambda word: word + 2 if word == 1 else word, release=counted))

    def unlocks() -> Thread:
        marked = yield RMW("word", lambda word: 0 if word == 1 else word, release=True)
        if marked != 3:
            return -1
        yield RMW("word", lambda word: word, acquire=seen, release=True)
        return (yield R("asleep"))

    def locks() -> Thread:
        if (yield RMW("word", lambda word: 1 if word == 0 else word, acquire=True)) != 0:
            raise Waits
        return (yield from unlocks())

    found = outcomes([sleeps, locks])
    assert any(outcome.answers == (1, 1) for outcome in found)
    return any(outcome.answers == (1, 0) for outcome in found)


def test_who_unlocks_sees_who_sleeps() -> None:
    assert not sleeper_missed()


@pytest.mark.parametrize("order", ["counted", "seen"])
def test_sleeping_needs_each_of_its_orders(order: str) -> None:
    assert sleeper_missed(**{order: False})
