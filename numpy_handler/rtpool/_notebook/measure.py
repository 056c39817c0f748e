"""Running code with arrays from a pool and with NumPy as it is: time, page faults, and what was recorded."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from .._handler.activation import active_pool
from .._handler.handler import handler
from .._pool.default import default_pool
from .._trace.recording import is_recording, record
from .._trace.trace import Trace

_TURN = 0.1  # seconds, roughly


class Turns(NamedTuple):
    """One way's turns: seconds and page faults of a run each, on average in a turn."""

    seconds: list[float]
    faults: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_faults(self) -> float:
        return statistics.median(self.faults)


class Outcome(NamedTuple):
    """What running the code came to.

    Attributes
    ----------
    pool : Turns
        With the pool.
    plain : Turns or None
        With NumPy as it is; `None`: not asked for, or not to be had.
    trace : Trace
        Of the last run with the pool.
    peak : int
        Bytes of the code's own arrays, the most alive at once.
    recorded : bool
        Whether the times are of the recorded run, which takes a little longer.
    why_not : str
        Why there is nothing to compare with; empty: there is, or nobody asked.
    value : object
        Of the last run.
    """

    pool: Turns
    plain: Turns | None
    trace: Trace
    peak: int
    recorded: bool
    why_not: str
    value: Any


class Busy(RuntimeError):
    """The process records already: there is one recording at a time."""


def run(code: Callable[[], Any], *, compare: bool, rounds: int, number: int, collect: bool) -> Outcome:
    """Run code as often as asked for. `number` 0: as many times a turn as take about a tenth of a second.

    `collect`: the garbage collector does as always; else, as in `timeit`, nothing while code runs.

    With NumPy as it is first, so that a pool that is warm is not compared with an allocator that is not; the turns of
    both ways alternate.
    """
    if is_recording():
        raise Busy("this process records already: end that recording first")
    pool = active_pool() or default_pool()
    plain = Turns([], [])
    pooled = Turns([], [])
    why_not = ""
    if compare and active_pool() is not None:
        compare, why_not = False, "the process is activated: there is no NumPy as it is to compare with"
    if compare or number != 1 or rounds != 1:
        ways: list[tuple[Turns, Callable[[], AbstractContextManager[Any]]]] = []
        if compare:
            ways.append((plain, nullcontext))
        ways.append((pooled, lambda: handler(pool)))
        for _ in range(rounds):
            for turns, enter in ways:
                with enter():
                    number = number or _fitting(code)
                    _turn(code, number, turns, collect)
    with handler(pool), record(pool=pool) as recording:
        once = Turns([], [])
        for _ in recording.iterations((0,)):
            value = _turn(code, 1, once, collect)
    trace = recording.trace
    peak = trace.analysis.peak_bytes - int(trace.analysis.peak_by_place[0])
    recorded = not pooled.seconds
    return Outcome(once if recorded else pooled, plain if compare else None, trace, peak, recorded, why_not, value)


def _fitting(code: Callable[[], Any]) -> int:
    """How often code fits into a turn; what it takes warms up the first way."""
    number = 1
    while True:
        turns = Turns([], [])
        _turn(code, number, turns, False)
        if turns.seconds[0] * number >= _TURN / 10 or number >= 100_000:
            return max(1, min(100_000, int(_TURN / max(turns.seconds[0], 1e-9))))
        number *= 10


def _turn(code: Callable[[], Any], number: int, turns: Turns, collect: bool) -> Any:
    """Run code so often; the value of the last time."""
    collects = gc.isenabled()
    if not collect:
        gc.disable()
    value = None
    try:
        faults, began = _faults(), time.perf_counter()
        for _ in range(number):
            value = None  # the one before is not to be alive beside the next
            value = code()
        took, faults = time.perf_counter() - began, _faults() - faults
    finally:
        if collects:
            gc.enable()
    turns.seconds.append(took / number)
    turns.faults.append(faults / number)
    return value


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt
