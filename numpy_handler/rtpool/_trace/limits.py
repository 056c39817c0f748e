"""Limits that tests of one's own code set: misses, page faults, temporaries, the peak, leaks. Never times."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from typing import Any, NamedTuple

from .._handler.handler import handler
from .._pool.pool import Pool
from .._support.sizes import format_size, parse_size
from .figures import Usage
from .recording import record
from .render import short
from .trace import Trace


class Measured(NamedTuple):
    """What the calls of a function came to.

    Attributes
    ----------
    misses, page_faults, leaks : int
        Over all measured calls; leaks are blocks that stayed behind.
    temporaries, peak : int
        Bytes: of one call on average, and the most alive at once.
    """

    misses: int
    page_faults: int
    temporaries: int
    peak: int
    leaks: int


_SIZES = ("temporaries", "peak")
# What a baseline holds: page faults depend on what else the machine and the process did.
COMPARED = ("misses", "temporaries", "peak", "leaks")


def parse_limits(given: dict[str, Any]) -> tuple[dict[str, int], int, int]:
    """Limits, warm-up and repeats of a marker's arguments."""
    limits: dict[str, int] = {}
    counts = {"warmup": 3, "repeat": 5}
    for name, value in given.items():
        if name in _SIZES:
            limits[name] = parse_size(value, name)
        elif name in Measured._fields or name in counts:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"rtpool marker: {name} is a whole number from 0 on, not {value!r}")
            (counts if name in counts else limits)[name] = value
        else:
            known = ", ".join([*Measured._fields, *counts])
            raise TypeError(f"rtpool marker: there is no {name!r}; there are {known}")
    if not counts["repeat"]:
        raise ValueError("rtpool marker: repeat is at least 1")
    return limits, counts["warmup"], counts["repeat"]


def measure(function: Callable[[], object], warmup: int, repeat: int) -> tuple[Measured, Trace]:
    """Call a function so often with NumPy's arrays from a pool of its own, and count over the last `repeat` calls."""
    pool = Pool(name="test")
    with handler(pool):
        for _ in range(warmup):
            function()
        gc.collect()
        alive = pool.stats().current_count
        with record(pool=pool) as recording:
            faults = _faults()
            for _ in recording.iterations(range(repeat)):
                function()
            faults = _faults() - faults
        gc.collect()
        leaks = pool.stats().current_count - alive
    trace = recording.trace
    sums = trace.analysis.sums
    temporaries = int(sums["temporary_bytes"].sum()) // repeat
    return Measured(int(sums["misses"].sum()), faults, temporaries, trace.analysis.peak_bytes, max(0, leaks)), trace


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_minflt + usage.ru_majflt


def complaint(measured: Measured, limits: dict[str, int], trace: Trace, baseline: dict[str, int] | None = None) -> str:
    """What is over its limit, and the lines at fault, in at most five lines; empty if nothing is.

    `baseline` holds limits for what `limits` does not name.
    """
    known = {**(baseline or {}), **limits}
    over = [name for name in Measured._fields if name in known and getattr(measured, name) > known[name]]
    if not over:
        return ""
    texts = []
    for name in over:
        value, limit = getattr(measured, name), known[name]
        show = format_size if name in _SIZES else str
        texts.append(f"{name} {show(value)}, {'allowed' if name in limits else 'in the baseline'} {show(limit)}")
    lines = ["rtpool: " + "; ".join(texts)]
    weight = _WEIGHTS.get(over[0], _WEIGHTS["temporaries"])
    guilty = sorted((usage for usage in trace.by_line() if weight(usage)), key=lambda usage: -weight(usage))
    for usage in guilty[:4]:
        what = format_size(weight(usage)) if over[0] in _SIZES else str(weight(usage))
        lines.append(f"  {what:>10}  {short(usage.file)}:{usage.line} in {usage.function}: {usage.source[:80]}")
    return "\n".join(lines)


_WEIGHTS: dict[str, Callable[[Usage], int]] = {
    "misses": lambda usage: usage.misses,
    "page_faults": lambda usage: usage.misses or usage.calls,
    "temporaries": lambda usage: usage.temporary_bytes,
    "peak": lambda usage: usage.peak_bytes,
    "leaks": lambda usage: usage.calls - usage.temporaries,
}
