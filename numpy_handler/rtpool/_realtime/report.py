"""The report of a real-time section: a value that can be printed, saved and plotted."""

from __future__ import annotations

import os
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

from .. import _core
from .._pool.effective import Degradation
from .._pool.objects import Objects
from .._pool.pool import Pool
from .._pool.stats import Stats
from . import render
from .environment import RunsAt, read_environment, why_unwatched
from .faults import read_origins
from .machine import Wanted
from .process import Misses
from .record import NANOSECOND, Distribution, Record, SlowIteration, Stretch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report(Record):
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
    fault_origins : tuple of FaultOrigin
        Where the page faults came from, most faults first: `kind`, `where`, `count`, `first` iteration, `function`.
        What the kernel did not tell stands there too, with the reason: all faults are accounted for. Empty: none.
    imported : tuple of str
        Modules that were imported while the measured iterations ran, by whatever thread. An import reads files, runs
        code for the first time and takes memory that no warm-up has seen: it belongs before the section.
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
    objects : Objects
        How Python's own objects were kept: arenas ready, missed, or why the pool did not serve them.
    degradations : tuple of Degradation
        Settings that were asked for and are not in force, with reason and fix.
    environment : Environment
        The machine and how the thread ran on it.
    """

    __slots__ = ()

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
        values["fault_origins"] = [asdict(origin) for origin in self.fault_origins]
        values["imported"] = list(self.imported)
        values["slowest"] = [asdict(iteration) for iteration in self.slowest]
        values["timeline"] = [list(astuple(stretch)) for stretch in self.timeline]
        values["first"] = list(self.first)
        values["pool"] = self.pool._asdict()
        values["objects"] = self.objects._asdict()
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


def make_report(
    loop: _core.Loop,
    pool: Pool,
    *,
    faults: _core.RawFaults | None,
    period: int,
    change: Stats,
    imported: tuple[str, ...],
    deviations: Misses,
    objects: Objects,
    interrupted: bool,
    runs_at: RunsAt,
    wanted: Wanted,
    degradations: tuple[Degradation, ...],
) -> Report:
    """Read everything a loop of that period (nanoseconds) has recorded; the rest is what its section knows.

    `faults`: what the loop told of them when the section ended, `None` while it runs.
    """
    iterations, overruns, skipped, collections, elapsed, zeroed, usage, watched, watch_error = loop.totals()
    origins = read_origins(
        loop.faults() if faults is None else faults,
        usage[0] + usage[1],
        "" if watched else f"the kernel did not let the section watch ({why_unwatched(watch_error)})",
    )
    duration, lateness = Distribution(loop.durations()), Distribution(loop.lateness())
    return Report(
        overruns=overruns,
        skipped=skipped,
        max_duration=duration.max,
        max_lateness=lateness.max,
        iterations=iterations,
        warmup_left=loop.warmup_left(),
        elapsed=elapsed * NANOSECOND,
        period=period * NANOSECOND or None,
        duration=duration,
        lateness=lateness,
        minor_faults=usage[0],
        major_faults=usage[1],
        voluntary_switches=usage[2],
        involuntary_switches=usage[3],
        fault_origins=origins,
        imported=imported,
        misses=sum(deviations.values()) + objects.misses,
        deviations=dict(sorted(deviations.items())),
        kernel_calls=change.kernel_calls,
        collections=collections,
        slowest=tuple(_slow(raw) for raw in loop.slowest()),
        first=tuple(value * NANOSECOND for value in loop.first()),
        timeline=tuple(_stretch(raw) for raw in loop.timeline()),
        interrupted=interrupted,
        zeroed_ahead=zeroed,
        pool=change,
        objects=objects,
        degradations=degradations,
        environment=read_environment(pool, runs_at, wanted, degradations, watched, watch_error),
    )


def _slow(raw: _core.RawIteration) -> SlowIteration:
    index, start, duration, lateness, usage, collections, span, overrun = raw
    return SlowIteration(
        index, start * NANOSECOND, duration * NANOSECOND, lateness * NANOSECOND, *usage, collections, span, overrun
    )


def _stretch(raw: tuple[int, int, int, int]) -> Stretch:
    count, total, longest, latest = raw
    return Stretch(count, total * NANOSECOND / count, longest * NANOSECOND, latest * NANOSECOND)
