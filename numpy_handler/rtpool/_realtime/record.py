"""What is known of the iterations of a section: spans of time, the slowest iterations, the timeline, and all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import _core
from .._pool.effective import Degradation
from .._pool.objects import Objects
from .._pool.stats import Stats
from .environment import Environment
from .faults import FaultOrigin

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
NANOSECOND = 1e-9


class Distribution:
    """Spans of time in seconds, kept in log-linear buckets: percentiles are at most 0.4 % from the truth.

    Attributes
    ----------
    count : int
    min, mean, max : float
        Exact; 0 when there are no values.
    """

    __slots__ = ("_histogram", "count", "max", "mean", "min")

    def __init__(self, histogram: _core.Histogram) -> None:
        self._histogram = histogram
        self.count = histogram.count
        self.min = histogram.min
        self.mean = histogram.mean
        self.max = histogram.max

    def percentile(self, q: float) -> float:
        """Give the span that `q` percent of all do not exceed, in seconds; 0 gives `min`, 100 gives `max`."""
        return self._histogram.percentile(q)

    def histogram(self) -> list[tuple[float, float, int]]:
        """Give all buckets that are not empty: lower and upper bound in seconds, and how many values."""
        return [(low * NANOSECOND, high * NANOSECOND, count) for low, high, count in self._histogram.buckets()]

    def _as_dict(self) -> dict[str, Any]:
        percentiles = {f"p{q:g}": self.percentile(q) for q in PERCENTILES}
        buckets = self._histogram.buckets()
        return {"count": self.count, "min": self.min, "mean": self.mean, "max": self.max, **percentiles,
                "buckets_ns": buckets}  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self.count} spans, {self.min:.3g} to {self.max:.3g} s>"


@dataclass(frozen=True, slots=True)
class SlowIteration:
    """One of the slowest iterations, with what happened in it.

    Attributes
    ----------
    index : int
        As its ``tick.index``.
    start, duration, lateness : float
        Seconds; `start` counts from the first measured iteration.
    minor_faults, major_faults, voluntary_switches, involuntary_switches : int
        Page faults of the thread, and times it gave its processor up or lost it.
    collections : int
        Garbage collections that began meanwhile, in any thread.
    span : int
        How many iterations the counts cover, with the waits between them. 1: this one alone. More where the kernel
        does not let the section watch the thread as it runs.
    overrun : bool
        Whether it ended after the next one was due.
    """

    index: int
    start: float
    duration: float
    lateness: float
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    collections: int
    span: int
    overrun: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive iterations of the timeline: how many, mean and longest duration, longest lateness (seconds)."""

    count: int
    mean: float
    max: float
    max_lateness: float


class Record(NamedTuple):
    """What a report holds; `Report` says what each field is."""

    overruns: int
    skipped: int
    max_duration: float
    max_lateness: float
    iterations: int
    warmup_left: int
    elapsed: float
    period: float | None
    duration: Distribution
    lateness: Distribution
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    fault_origins: tuple[FaultOrigin, ...]
    imported: tuple[str, ...]
    misses: int
    deviations: Mapping[int, int]
    kernel_calls: int
    collections: int
    slowest: tuple[SlowIteration, ...]
    first: tuple[float, ...]
    timeline: tuple[Stretch, ...]
    interrupted: bool
    zeroed_ahead: int
    pool: Stats
    objects: Objects
    degradations: tuple[Degradation, ...]
    environment: Environment
