"""Interleaved measurement: several ways of doing one thing, in turns, within one process.

A machine's speed drifts; ways that are measured one after the other measure the drift too. Here each round gives every
way its turn, in alternating order, and ratios are taken within a round.
"""

from __future__ import annotations

import array
import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

try:
    import resource
except ImportError:  # not on this platform: faults are then unknown
    resource = None  # type: ignore[assignment]


class Way(NamedTuple):
    """One way of doing the work: `call` is measured inside the context that `enter` makes."""

    name: str
    enter: Callable[[], AbstractContextManager[object]]
    call: Callable[[], object]


class Timing(NamedTuple):
    """What one way took. Seconds, and page faults of this process per iteration (None where they cannot be counted)."""

    name: str
    median: float
    minimum: float
    slowest: float
    ratio: float
    faults: float | None
    iterations: int


def page_faults() -> int | None:
    """Return the page faults of this process so far, minor and major."""
    if resource is None:
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _batch(way: Way, iterations: int) -> tuple[list[float], int | None]:
    """Time each of some iterations, after one that is not measured, and count the faults of all of them."""
    ticks = array.array("q", bytes(8 * (iterations + 1)))
    clock, call = time.perf_counter_ns, way.call
    with way.enter():
        call()
        faults_before = page_faults()
        ticks[0] = clock()
        for i in range(1, iterations + 1):
            call()
            ticks[i] = clock()
        faults_after = page_faults()
    seconds = [(ticks[i + 1] - ticks[i]) * 1e-9 for i in range(iterations)]
    faults = None if faults_before is None or faults_after is None else faults_after - faults_before
    return seconds, faults


def interleave(
    ways: Sequence[Way], *, reference: str, budget: float, rounds: int = 7, iterations: int | None = None
) -> list[Timing]:
    """Measure some ways in turns.

    Parameters
    ----------
    ways : sequence of Way
        What to compare.
    reference : str
        The way that ratios refer to.
    budget : float
        Seconds to spend on all of them together, roughly.
    rounds : int
        Turns each way gets; fewer, but at least 3, when the machine turns out slower than at first.
    iterations : int, optional
        Iterations in a turn; by default as many as fit the budget, at least 3.

    Returns
    -------
    list of Timing
        In the order of `ways`. `ratio`: the median of this turn over the median of the reference's turn, and of that
        the median over all rounds.
    """
    with _no_collections():
        if iterations is None:
            slowest = max(statistics.median(_batch(way, 3)[0]) for way in ways)
            iterations = max(3, min(20_000, int(budget / (slowest * len(ways) * rounds))))
        seconds: dict[str, list[float]] = {way.name: [] for way in ways}
        turns: dict[str, list[float]] = {way.name: [] for way in ways}
        faults: dict[str, int | None] = {way.name: 0 for way in ways}
        began = time.perf_counter()
        for turn in range(rounds):
            if turn >= 3 and time.perf_counter() - began > budget:
                break
            shift = turn % len(ways)
            order = [*ways[shift:], *ways[:shift]]
            for way in order if turn % 2 == 0 else reversed(order):
                took, faulted = _batch(way, iterations)
                seconds[way.name] += took
                turns[way.name].append(statistics.median(took))
                before = faults[way.name]
                faults[way.name] = None if before is None or faulted is None else before + faulted
    results = []
    for way in ways:
        ratios = [mine / theirs for mine, theirs in zip(turns[way.name], turns[reference], strict=True)]
        faulted = faults[way.name]
        results.append(
            Timing(
                name=way.name,
                median=statistics.median(seconds[way.name]),
                minimum=min(seconds[way.name]),
                slowest=max(seconds[way.name]),
                ratio=statistics.median(ratios),
                faults=None if faulted is None else faulted / len(seconds[way.name]),
                iterations=len(seconds[way.name]),
            )
        )
    return results
