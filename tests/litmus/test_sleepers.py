"""Nobody sleeps for ever on a PriorityLock (os/priority_lock_linux.cpp), in whatever order threads take their steps.

The steps of `lock_by_luck`, `sleep`, `unlock` and `wake` one by one, all interleavings of them: each thread takes the
lock and leaves it, some times. What a processor may exchange of them is test_litmus.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

FREE, HELD, MARKED = range(3)


class State(NamedTuple):
    """The lock's words, and of each thread what it does next, the number of wakes that it knows, and turns to do."""

    word: int = FREE
    asleep: int = 0
    waking: bool = False
    wakes: int = 0
    threads: tuple[tuple[str, int, int], ...] = ()


def steps(state: State, me: int, order: str) -> Iterator[State]:
    """What one thread may do next; nothing while it sleeps or is done."""
    step, known, turns = state.threads[me]

    def then(step: str, known: int = known, turns: int = turns, **words: int | bool) -> State:
        threads = (*state.threads[:me], (step, known, turns), *state.threads[me + 1 :])
        return state._replace(threads=threads, **words)

    if step == "lock" and turns > 0:
        yield then("unlock", word=HELD) if state.word == FREE else then("spin")
    elif step == "spin":
        yield then("look for sleepers", word=HELD) if state.word == FREE else then("count")
    elif step == "look for sleepers":
        yield then("unlock", word=MARKED) if state.asleep and order != "no mark for others" else then("unlock")
    elif step == "count":
        yield then("say", known=state.wakes)
    elif step == "say":
        yield then("mark", asleep=state.asleep + 1)
    elif step == "mark":
        yield then("leave") if state.word == FREE else then("wait", word=MARKED)
    elif step == "wait":
        yield then("leave" if state.wakes != known else "sleep")
    elif step == "leave" and order == "first the mark":
        yield then("uncount", waking=False)
    elif step == "leave":
        yield then("spin", asleep=state.asleep - 1, waking=False)
    elif step == "uncount":
        yield then("spin", asleep=state.asleep - 1)
    elif step == "unlock":
        yield then("lock", turns=turns - 1, word=FREE) if state.word == HELD else then("wake", word=FREE)
    elif step == "wake":
        # One compare-and-swap.
        if state.asleep == 0 or state.waking:
            yield then("lock", turns=turns - 1)
        else:
            yield then("tell", waking=True)
    elif step == "tell":
        yield then("call", wakes=state.wakes + 1)
    elif step == "call":
        woken = then("lock", turns=turns - 1)
        sleepers = [one for one, (theirs, _, _) in enumerate(state.threads) if theirs == "sleep"]
        for one in sleepers:  # the kernel's choice
            _, knows, left = woken.threads[one]
            yield woken._replace(threads=(*woken.threads[:one], ("leave", knows, left), *woken.threads[one + 1 :]))
        if not sleepers:
            yield woken


def stuck(turns: tuple[int, ...], order: str) -> list[State]:
    """States that nothing leads out of although some thread is not done."""
    begin = State(threads=tuple(("lock", 0, count) for count in turns))
    seen, todo, found = {begin}, [begin], []
    while todo:
        state = todo.pop()
        later = [next_ for me in range(len(turns)) for next_ in steps(state, me, order)]
        if not later and any(left for _, _, left in state.threads):
            found.append(state)
        for next_ in later:
            if next_ not in seen:
                seen.add(next_)
                todo.append(next_)
    assert len(seen) > 500
    return found


@pytest.mark.parametrize("turns", [(2, 2), (3, 3), (2, 1, 1), (2, 2, 1)])
def test_nobody_sleeps_for_ever(turns: tuple[int, ...]) -> None:
    assert not stuck(turns, "at once")


@pytest.mark.parametrize("order", ["first the mark", "no mark for others"])
def test_each_step_is_needed(order: str) -> None:
    """That k_waking goes with the count: one can be set in between. That who has slept marks the word for others."""
    assert stuck((2, 2, 1), order)
