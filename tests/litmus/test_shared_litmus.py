"""Pools in shared memory on 64-bit Arm: what src/shared does, and that what it could leave out it needs.

What has no order of memory written there is sequentially consistent: LDAR, STLR, and pairs of LDAXR and STLXR. As
test_litmus.py: each protocol as the core does it, and once more with each of its orders taken away.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import RMW, Event, R, W, Waits, outcomes

Thread = Generator[Event, int, int]


def holds_breaks(*, marked: bool = True, looked: bool = True, closing: bool = True, counted: bool = True) -> bool:
    """records.cpp: one process takes hold of a block while another, which held it last, closes it."""

    def comes() -> Thread:  # acquire
        yield RMW("bits", lambda bits: bits | 1, acquire=True, release=marked)
        state = yield R("state", acquire=looked)
        return 1 if state == 0 else 0  # 0: alive

    def closes() -> Thread:  # close_for, finish_closing
        state = yield RMW("state", lambda _: 1, acquire=True, release=closing)
        if state != 0:
            raise Waits
        bits = yield R("bits", acquire=counted)
        return 1 if bits == 0 else 0

    return any(outcome.answers == (1, 1) for outcome in outcomes([comes, closes]))


def test_a_block_is_not_taken_hold_of_and_closed() -> None:
    assert not holds_breaks()


@pytest.mark.parametrize("order", ["marked", "looked", "closing", "counted"])
def test_holding_and_closing_need_each_of_their_orders(order: str) -> None:
    assert holds_breaks(**{order: False})


def reuse_breaks(*, dropped: bool = True, looked: bool = True, released: bool = True, taken: bool = True) -> bool:
    """records.cpp: a holder reads a block and drops it, somebody closes it, its owner uses it again."""

    def holder() -> Thread:  # drop
        data = yield R("data")
        yield RMW("bits", lambda _: 0, acquire=True, release=dropped)
        return data

    def closer() -> Thread:  # finish_closing
        if (yield R("bits", acquire=looked)) != 0:
            raise Waits
        yield W("state", 2, release=released)
        return 0

    def owner() -> Thread:  # take_released
        if (yield R("state", acquire=taken)) != 2:
            raise Waits
        yield W("data", 9)
        return 0

    found = outcomes([holder, closer, owner], {"bits": 1, "data": 7, "state": 1})
    assert found
    return any(outcome.answers[0] == 9 for outcome in found)


def test_a_block_is_used_again_after_its_last_reader() -> None:
    assert not reuse_breaks()


@pytest.mark.parametrize("orders", [("dropped",), ("taken",), ("looked", "released")])
def test_using_a_block_again_needs_its_orders(orders: tuple[str, ...]) -> None:
    """Of the closer's two one would do: its look at the bits stands before its store either way."""
    assert reuse_breaks(**dict.fromkeys(orders, False))
    assert not any(len(orders) > 1 and reuse_breaks(**{order: False}) for order in orders)


def borrowing_breaks(*, marked: bool = True, taken: bool = True, closing: bool = True) -> bool:
    """records.cpp: a process takes a closed record over, its bit first, while another closes what it finds alive."""

    def borrows() -> Thread:  # begin_anew
        yield RMW("bits", lambda _: 1, acquire=True, release=marked)
        yield RMW("state", lambda _: 0, acquire=True, release=taken)
        return 0

    def closes() -> Thread:  # close_for, finish_closing
        if (yield RMW("state", lambda state: 1 if state == 0 else state, acquire=closing, release=True)) != 0:
            raise Waits
        return (yield R("bits"))

    found = outcomes([borrows, closes], {"state": 2})
    assert found
    return any(outcome.answers[1] == 0 for outcome in found)


def test_a_borrowed_block_is_not_closed() -> None:
    assert not borrowing_breaks()


@pytest.mark.parametrize("orders", [("closing",), ("marked", "taken")])
def test_borrowing_needs_its_orders(orders: tuple[str, ...]) -> None:
    """Of the borrower's two one would do."""
    assert borrowing_breaks(**dict.fromkeys(orders, False))
    assert not any(len(orders) > 1 and borrowing_breaks(**{order: False}) for order in orders)


def granules_break(*, given: bool = True, got: bool = True) -> bool:
    """granules.hpp: a run that its owner offers or releases and another process takes: what was written comes along."""

    def owner() -> Thread:  # offer_idle, release
        yield W("data", 1)
        yield RMW("word", lambda _: 2, release=given)
        return 0

    def thief() -> Thread:  # take_over, try_claim_at; the word was looked at before, relaxed
        if (yield R("word")) != 2:
            raise Waits
        if (yield RMW("word", lambda _: 3, acquire=got, release=True)) != 2:
            raise Waits
        return (yield R("data"))

    found = outcomes([owner, thief], {"word": 1})
    assert found
    return any(outcome.answers[1] != 1 for outcome in found)


def test_granules_change_hands_whole() -> None:
    """The relaxed look at the word before decides nothing: the compare-and-swap does."""
    assert not granules_break()


@pytest.mark.parametrize("order", ["given", "got"])
def test_granules_need_each_of_their_orders(order: str) -> None:
    assert granules_break(**{order: False})


def lending_breaks(*, lent: bool = True, marked: bool = True) -> bool:
    """granules.cpp, recovery.cpp: an owner shares a block and lends its run; who marks the run must find the record."""

    def owner() -> Thread:  # Records::create, Granules::lend
        yield W("record", 1)
        yield RMW("run", lambda _: 1, acquire=True, release=lent)
        return 0

    def looks() -> Thread:  # mark_lent, Coverage
        if (yield RMW("run", lambda _: 2, acquire=marked, release=True)) != 1:
            raise Waits
        return (yield R("record"))

    found = outcomes([owner, looks])
    assert found
    return any(outcome.answers[1] == 0 for outcome in found)


def test_whoever_marks_a_lent_run_finds_its_records() -> None:
    assert not lending_breaks()


@pytest.mark.parametrize("order", ["lent", "marked"])
def test_lending_needs_each_of_its_orders(order: str) -> None:
    assert lending_breaks(**{order: False})


def dead_bits_break(*, marked: bool = True, read_back: bool = True) -> bool:
    """recovery.cpp: a process sets its bit in a record and dies; recovery looks at the bits relaxed (clear_records).

    Between the look at the process (`gone`, a file of the kernel's: no order of ours) and the look at the bits stands
    the slot's word, which recovery writes and reads back.
    """

    def dies() -> Thread:
        yield RMW("bits", lambda _: 1, acquire=True, release=True)
        yield W("gone", 1, release=True)  # the kernel's
        return 0

    def recovers() -> Thread:  # mark_dead, run, clear_records
        if (yield R("gone")) != 1:
            raise Waits
        yield RMW("slot", lambda _: 4, acquire=True, release=marked)
        reaping = (yield R("slot", acquire=read_back)) == 4
        bits = yield R("bits")
        return bits if reaping else 1

    found = outcomes([dies, recovers])
    assert found
    return any(outcome.answers[1] == 0 for outcome in found)


def test_recovery_sees_each_bit_that_a_dead_process_set() -> None:
    assert not dead_bits_break()


@pytest.mark.parametrize("order", ["marked", "read_back"])
def test_recovery_needs_each_of_its_orders(order: str) -> None:
    assert dead_bits_break(**{order: False})


def ranges_break(*, written: bool = True, read: bool = True, versions: bool = True) -> bool:
    """address_ranges.hpp: a pool of 100 bytes at 100 goes, one of 300 at 1000 takes its entry; one asks for 300."""

    def changes() -> Thread:  # the stores of `change` that matter
        yield W("version", 1)
        yield W("begin", 1000, release=written)
        yield W("bytes", 300, release=written)
        return 0

    def asks() -> Thread:  # holds
        before = yield R("version", acquire=read)
        begin = yield R("begin", acquire=read)
        size = yield R("bytes", acquire=read)
        after = yield R("version")
        same = before == after and before % 2 == 0
        return 1 if begin <= 300 < begin + size and (same or not versions) else 0

    found = outcomes([changes, asks], {"begin": 100, "bytes": 100})
    return any(outcome.answers[1] == 1 for outcome in found)


def test_an_entry_that_changes_is_passed_over() -> None:
    """The first store of the version is relaxed: the release of the next one orders it."""
    assert not ranges_break()


@pytest.mark.parametrize("order", ["written", "read", "versions"])
def test_address_ranges_need_each_of_their_orders(order: str) -> None:
    assert ranges_break(**{order: False})
