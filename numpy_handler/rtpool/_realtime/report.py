"""The report of a real-time section: a value that can be printed, saved and plotted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from .._pool.effective import Degradation
from .._pool.stats import Stats
from . import render
from .environment import Environment, read_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .section import realtime

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


class Report(NamedTuple):
    """How the measured iterations of a real-time section went. Times are seconds.

    ``print(report)`` puts first what matters most: overruns, then the slowest.

    Attributes
    ----------
    overruns : int
        Iterations that ended after the next one was due.
    skipped : int
        Periods left out after overruns (``overrun="skip"``).
    max_duration, max_lateness : float
        The longest work of an iteration, and the latest start.
    iterations : int
        Measured ones, without warm-up. One that `break` or an exception left is not counted.
    warmup_left : int
        Warm-up iterations that the section did not come to. With any left nothing was measured, and all figures are 0.
    elapsed : float
        From the first measured iteration, or from entering the section, to its end.
    period : float or None
    duration, lateness : Distribution
        The work of each iteration from its start to its end; and its start after it was due (0 without a period).
    minor_faults, major_faults, voluntary_switches, involuntary_switches : int
        Of the section's thread from the first measured iteration to the end, waits included: each wait is one
        voluntary switch.
    misses : int
        Requests that the frozen pool could not serve.
    deviations : Mapping[int, int]
        Which ones: bytes asked for -> how often. They are what the plan lacks.
    kernel_calls : int
        Calls of the pool into the kernel for memory.
    collections : int
        Garbage collections.
    slowest : tuple of SlowIteration
        The 32 slowest iterations, slowest first.
    first : tuple of float
        Durations of the first 128 iterations.
    timeline : tuple of Stretch
        The whole run in at most 2,048 stretches.
    interrupted : bool
        Whether Ctrl-C ended the loop.
    zeroed_ahead : int
        Bytes cleared in idle time.
    pool : Stats
        What the pool counted meanwhile, all threads together.
    degradations : tuple of Degradation
        Settings that were asked for and are not in force, with reason and fix.
    environment : Environment
        The machine and how the thread ran on it.
    """

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
    degradations: tuple[Degradation, ...]
    environment: Environment

    def __str__(self) -> str:
        return render.text(self)

    def __repr__(self) -> str:
        return (
            f"<report: {self.overruns} overruns in {self.iterations} iterations,"
            f" longest {render.span(self.max_duration)}, latest {render.span(self.max_lateness)}>"
        )

    def _repr_html_(self) -> str:
        return render.html(self)

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values, for JSON."""
        values = self._asdict()
        values["duration"] = self.duration._as_dict()
        values["lateness"] = self.lateness._as_dict()
        values["deviations"] = [{"requested": size, "count": count} for size, count in self.deviations.items()]
        values["slowest"] = [asdict(iteration) for iteration in self.slowest]
        values["timeline"] = [list(astuple(stretch)) for stretch in self.timeline]
        values["first"] = list(self.first)
        values["pool"] = self.pool._asdict()
        values["degradations"] = [one._asdict() for one in self.degradations]
        values["environment"] = self.environment.to_dict()
        return values

    def to_json(self, *, indent: int | None = None) -> str:
        """Give the whole report as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=indent)

    def cyclictest(self, of: str = "lateness", *, bins: int | None = None) -> str:
        """Give a histogram in the format of ``cyclictest -h``, which its plotting scripts read.

        Parameters
        ----------
        of : {"lateness", "duration"}
        bins : int, optional
            Microseconds that get a line; values beyond are counted as overflows. Default: up to the longest value, at
            most 10,000.
        """
        if of not in ("lateness", "duration"):
            raise ValueError(f"of must be 'lateness' or 'duration', not {of!r}")
        return render.cyclictest(self.lateness if of == "lateness" else self.duration, bins)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw duration and lateness over time, and their histograms.

        Needs matplotlib: ``pip install rtpool[plot]``.

        Parameters
        ----------
        path : path, optional
            Where to save the picture as well.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .plot import draw

        figure = draw(self)
        if path is not None:
            figure.savefig(path)
        return figure


def make_report(section: realtime) -> Report:
    """Read everything a section has recorded."""
    loop, pool = section._loop, section._pool
    if loop is None or pool is None:
        raise RuntimeError("the real-time section has not been entered, there is nothing to report")
    iterations, overruns, skipped, collections, elapsed, zeroed, usage, watched, watch_error = loop.totals()
    duration, lateness = Distribution(loop.durations()), Distribution(loop.lateness())
    after = section._stats_after if section._stats_after is not None else pool.stats()
    change = after - section._stats_before if section._stats_before is not None else Stats()
    freeze = section._freeze
    misses = dict(sorted((section._misses if freeze is None else freeze.misses()).items()))
    return Report(
        overruns=overruns,
        skipped=skipped,
        max_duration=duration.max,
        max_lateness=lateness.max,
        iterations=iterations,
        warmup_left=loop.warmup_left(),
        elapsed=elapsed * NANOSECOND,
        period=section._pacing.period * NANOSECOND or None,
        duration=duration,
        lateness=lateness,
        minor_faults=usage[0],
        major_faults=usage[1],
        voluntary_switches=usage[2],
        involuntary_switches=usage[3],
        misses=sum(misses.values()),
        deviations=misses,
        kernel_calls=change.kernel_calls,
        collections=collections,
        slowest=tuple(_slow(raw) for raw in loop.slowest()),
        first=tuple(value * NANOSECOND for value in loop.first()),
        timeline=tuple(_stretch(raw) for raw in loop.timeline()),
        interrupted=section.interrupted,
        zeroed_ahead=zeroed,
        pool=change,
        degradations=section.degradations,
        environment=read_environment(pool, section._runs_at, section._wanted, section._errors, watched, watch_error),
    )


def _slow(raw: _core.RawIteration) -> SlowIteration:
    index, start, duration, lateness, usage, collections, span, overrun = raw
    return SlowIteration(
        index, start * NANOSECOND, duration * NANOSECOND, lateness * NANOSECOND, *usage, collections, span, overrun
    )


def _stretch(raw: tuple[int, int, int, int]) -> Stretch:
    count, total, longest, latest = raw
    return Stretch(count, total * NANOSECOND / count, longest * NANOSECOND, latest * NANOSECOND)
