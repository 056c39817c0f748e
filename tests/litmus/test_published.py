"""What one thread of the core publishes for others to look at without a lock, on 64-bit Arm.

As test_litmus.py: each protocol as the core does it, and once more with each of its orders taken away. A release fence
is DMB ISH there, an acquire fence DMB ISHLD.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import RMW, Event, R, W, Waits, fence, membarrier, outcomes

Thread = Generator[Event, int, int]


# base/loads.hpp: a pointer, and what is read through it alone (handler/activation.cpp).


def pointer_breaks(*, published: bool = True, through: bool = True) -> bool:
    def activates() -> Thread:
        yield W("pool", 7)
        yield W("target", 1, release=published)
        return 0

    def allocates() -> Thread:
        if (yield R("target")) == 0:
            raise Waits
        return (yield R("pool", uses=0 if through else -1))

    return any(outcome.answers[1] != 7 for outcome in outcomes([activates, allocates]))


def test_what_is_read_through_a_pointer_needs_no_acquire() -> None:
    assert not pointer_breaks()


@pytest.mark.parametrize("order", ["published", "through"])
def test_a_pointer_needs_each_of_its_orders(order: str) -> None:
    assert pointer_breaks(**{order: False})


# pool/registry.cpp: a slot that goes to another pool while somebody looks an address up without a lock.


def registry_breaks(*, left: bool = True, entered: bool = True, first: bool = True, second: bool = True) -> bool:
    """The pool of 100 bytes at 100 goes, one of 300 at 1000 takes its slot; 300 lies in neither."""

    def changes() -> Thread:
        yield W("id", 0)  # registry_leave
        if left:
            yield fence("full")
        yield W("begin", 1000)  # registry_enter
        yield W("bytes", 300)
        yield W("id", 2, release=entered)
        return 0

    def looks() -> Thread:  # registry_find
        before = yield R("id", acquire=first)
        size = yield R("bytes")
        begin = yield R("begin")
        if second:
            yield fence("load")
        after = yield R("id")
        return 1 if before != 0 and before == after and begin <= 300 < begin + size else 0

    found = outcomes([changes, looks], {"id": 1, "begin": 100, "bytes": 100})
    return any(outcome.answers[1] == 1 for outcome in found)


def test_no_address_is_found_in_a_slot_that_changes() -> None:
    assert not registry_breaks()


@pytest.mark.parametrize("order", ["left", "entered", "first", "second"])
def test_the_registry_needs_each_of_its_orders(order: str) -> None:
    assert registry_breaks(**{order: False})


# blocks/heap.hpp, heap.cpp: counts that move from one place to another while somebody adds them up (Heap::totals).
# live/publisher.cpp is the same, for another process: its reader's calls of the kernel stand between the looks.


def sum_breaks(*, begun: bool = True, ended: bool = True, looked: bool = True, sure: bool = True) -> bool:
    def moves() -> Thread:  # begin_move, claim_bin, end_move
        yield W("moves", 1)
        if begun:
            yield fence("full")
        yield W("pops", 0)
        yield W("other", 5)
        if ended:
            yield fence("full")
        yield W("moves", 2)
        return 0

    def adds() -> Thread:  # totals
        before = yield R("moves")
        if looked:
            yield fence("load")
        total = yield R("pops")
        total += yield R("other")
        if sure:
            yield fence("load")
        after = yield R("moves")
        if before % 2 or before != after:
            raise Waits
        return total

    return any(outcome.answers[1] != 5 for outcome in outcomes([moves, adds], {"pops": 5}))


def test_what_moves_is_counted_once() -> None:
    assert not sum_breaks()


@pytest.mark.parametrize("order", ["begun", "ended", "looked", "sure"])
def test_counting_what_moves_needs_each_of_its_orders(order: str) -> None:
    assert sum_breaks(**{order: False})


def page_breaks(*, fenced: bool = True, ended: bool = True) -> bool:
    """live/publisher.cpp: an answer is read whole, or its number says that it is not."""

    def answers() -> Thread:
        # Without the fence: the first number sequentially consistent, which orders nothing that comes after it.
        yield W("sequence", 1, release=not fenced)
        if fenced:
            yield fence("full")
        yield W("instant", 2)
        yield W("pools", 2)
        yield W("sequence", 2, release=ended)
        return 0

    def looks() -> Thread:  # _live/processes.py; the kernel orders one read of the file after the other
        before = yield R("sequence")
        yield fence("full")
        instant = yield R("instant")
        pools = yield R("pools")
        yield fence("full")
        after = yield R("sequence")
        return 1 if before % 2 == 0 and before == after and instant != pools else 0

    return any(outcome.answers[1] == 1 for outcome in outcomes([answers, looks]))


def test_an_answer_is_read_whole() -> None:
    assert not page_breaks()


@pytest.mark.parametrize("order", ["fenced", "ended"])
def test_an_answer_needs_each_of_its_orders(order: str) -> None:
    assert page_breaks(**{order: False})


# pool/control.cpp: a walk over all pages, with the heaps stopped, while another heap's thread frees a run.


def walk_breaks(*, linked: bool = True, looked: bool = True) -> bool:
    heap, remote, live, marked, in_list = 1, 2, 10, 11, 12

    def frees() -> Thread:  # Heap::free_remote
        if (yield RMW("next", lambda _: marked)) != live:
            raise Waits
        yield W("head", remote)
        yield W("next", in_list, release=linked)
        return 0

    def walks() -> Thread:  # walk_pages
        following = yield R("next", acquire=looked)
        state = yield R("head")
        return 1 if state == remote or following in (live, marked) else 0

    found = outcomes([frees, walks], {"next": live, "head": heap})
    assert found
    return any(outcome.answers[1] == 0 for outcome in found)


def test_a_run_counts_until_its_owner_has_it_back() -> None:
    assert not walk_breaks()


@pytest.mark.parametrize("order", ["linked", "looked"])
def test_walking_needs_each_of_its_orders(order: str) -> None:
    assert walk_breaks(**{order: False})


# pool/stranger_frees.hpp: sums that are moved from the word of the last frees to the totals.


def stranger_breaks(*, moved: bool = True, read: bool = True) -> bool:
    def frees() -> Thread:  # add, add_to_totals
        yield RMW("recent", lambda _: 0, acquire=moved)
        yield RMW("totals", lambda totals: totals + 1, release=moved)
        return 0

    def reads() -> Thread:  # sums
        totals = yield R("totals", acquire=read)
        return totals + (yield R("recent", acquire=read))

    return any(outcome.answers[1] > 1 for outcome in outcomes([frees, reads], {"recent": 1}))


def test_a_strangers_free_is_not_counted_twice() -> None:
    """Of the mover's two, the acquire of the one and the release of the other, one would do."""
    assert not stranger_breaks()


@pytest.mark.parametrize("order", ["moved", "read"])
def test_sums_of_strangers_need_their_orders(order: str) -> None:
    assert stranger_breaks(**{order: False})


# trace/recorder.cpp: ST-1, and who is late from the recording before.


def recording_breaks(*, barrier: bool = True, looked: bool = True, left: bool = True, awaited: bool = True,
                     begun: bool = True) -> bool:  # fmt: skip
    """A thread adds to its stream while its recording, number 1, is stopped and collected and number 2 begins."""
    idle, running = 0, 1

    def records() -> Thread:  # Visit; state and number are looked at inside
        yield W("busy", 1)
        state = yield R("state")
        if looked:
            yield fence("load")
        number = yield R("number")
        if state == running and number == 1:
            stream = yield R("stream")
            yield W("stream", stream + 1)
        yield W("busy", 0, release=left)
        return 0

    def stops() -> Thread:  # stop, finish, start
        yield W("state", idle)
        if barrier:
            yield membarrier()
        if (yield R("busy", acquire=awaited)) != 0:
            raise Waits
        collected = yield R("stream")
        yield W("number", 2)
        yield W("state", running, release=begun)
        return collected

    found = outcomes([records, stops], {"state": running, "number": 1})
    assert found
    return any(outcome["stream"] != outcome.answers[1] for outcome in found)


def test_a_recording_has_all_events_of_its_own() -> None:
    assert not recording_breaks()


@pytest.mark.parametrize("order", ["barrier", "looked", "left", "awaited", "begun"])
def test_a_recording_needs_each_of_its_orders(order: str) -> None:
    assert recording_breaks(**{order: False})


# trace/chunk_store.cpp: a chunk that one thread gives back and another takes.


def chunk_breaks(*, given: bool = True, taken: bool = True) -> bool:
    def gives() -> Thread:  # give; the head's tag keeps one that was taken meanwhile from being taken for another
        yield W("chunk2", 7)
        head = yield R("head")
        yield W("next2", 100 + head)
        if (yield RMW("head", lambda _: 2, release=given)) != head:
            raise Waits
        return 0

    def takes() -> Thread:  # take
        head = yield R("head", acquire=taken)
        if head != 2:
            raise Waits
        following = yield R("next2")
        if (yield RMW("head", lambda _: following - 100, acquire=taken)) != head:
            raise Waits
        return 0 if following == 101 and (yield R("chunk2")) == 7 else 1

    found = outcomes([gives, takes], {"head": 1})
    assert found
    return any(outcome.answers[1] == 1 for outcome in found)


def test_chunks_change_hands_whole() -> None:
    assert not chunk_breaks()


@pytest.mark.parametrize("order", ["given", "taken"])
def test_chunks_need_each_of_their_orders(order: str) -> None:
    assert chunk_breaks(**{order: False})


# replay/replayer.cpp: who goes to sleep and who wakes sleepers; one of both sees the other.


def sleeping_breaks(*, published: bool = True, looked: bool = True, slept: bool = True, sure: bool = True) -> bool:
    def goes_on() -> Thread:  # publish
        yield W("next", 1, release=published)
        return (yield R("sleepers", acquire=looked))

    def waits() -> Thread:  # wait_until
        yield RMW("sleepers", lambda sleepers: sleepers + 1, acquire=True, release=slept)
        return (yield R("next", acquire=sure))

    return any(outcome.answers == (0, 0) for outcome in outcomes([goes_on, waits]))


def test_no_sleeper_is_overlooked() -> None:
    assert not sleeping_breaks()


@pytest.mark.parametrize("order", ["published", "looked", "slept", "sure"])
def test_sleeping_needs_each_of_its_orders(order: str) -> None:
    assert sleeping_breaks(**{order: False})
