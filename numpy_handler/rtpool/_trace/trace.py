"""Traces: what a recording tells."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .analysis import Analysis
from .by_pool import ELSEWHERE
from .figures import BYPASS, Difference, Miss, PoolUsage, Usage, WorkingSet
from .file import Place, PoolRange, TraceFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .advice import Advice
    from .fit import Fit
    from .sizes import SizeUse

_Where = tuple[str, str, int, int | None, int | None, int]  # file, function, line, columns, last line


class Trace:
    """What a recording tells: who made which arrays, when, what they cost, and what would fit.

    Traces come from `record` and from files; see `load`. They hold what pools were asked for. Not seen is what
    bypasses the handler: NumPy's iterator buffers, sort scratch and LAPACK work arrays, Python's own objects, and other
    libraries' memory. `summary` names this beside the resident size of the process.

    Attributes
    ----------
    file : TraceFile
        The records as they are.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> with rtpool.handler(), rtpool.record() as rec:
    ...     for number in rec.iterations(range(10)):
    ...         total = (np.empty(100_000) + number).sum()
    >>> trace = rec.trace
    >>> trace.iterations, trace.by_line()[0].calls >= 20
    (10, True)
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = TraceFile(file)
        self._analysis: Analysis | None = None
        self._unit: float | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace from a file that `record` or ``python -m rtpool run --record`` wrote.

        Raises
        ------
        OSError
            If the file cannot be read.
        TraceError
            If it holds no trace, or a damaged one; a `ValueError`. Nothing in a file is trusted.
        """
        return cls(open(path, "rb"))  # noqa: SIM115 - events are read when they are asked for

    @property
    def analysis(self) -> Analysis:
        """What one pass over all events finds; made when first asked for, and kept."""
        if self._analysis is None:
            self._analysis = Analysis(self.file)
        return self._analysis

    def detailed(self) -> Analysis:
        """The analysis with sums by place over time, as pictures need them; takes a pass more if there was one."""
        if self._analysis is None or not self._analysis.over_time.by_place:
            self._analysis = Analysis(self.file, by_place=True)
        return self._analysis

    @property
    def iterations(self) -> int:
        """Iterations that were marked, or ticks of a real-time section."""
        return self.analysis.iterations

    @property
    def seconds(self) -> float:
        """From the first to the last event."""
        return (self.analysis.last_time - self.analysis.first_time) * self.seconds_a_unit

    @property
    def seconds_a_unit(self) -> float:
        """Seconds of a unit of the trace's times."""
        if self._unit is None:
            samples = self.file.samples
            ticks = samples[-1].time - samples[0].time if samples else 0
            self._unit = (samples[-1].nanoseconds - samples[0].nanoseconds) / 1e9 / ticks if ticks > 0 else 8e-9
        return self._unit

    def by_line(self) -> list[Usage]:
        """What each line of the program asked for, most bytes first."""
        return self._usage(lambda place: (place.file, place.function, place.line, None, None, place.line))

    def by_expression(self) -> list[Usage]:
        """What each expression asked for, most bytes first. Python 3.11 and newer know expressions, 3.10 lines."""
        return self._usage(
            lambda place: (place.file, place.function, place.line, place.column, place.end_column, place.end_line)
        )

    def temporaries(self) -> list[Usage]:
        """Expressions whose arrays are born and gone within an iteration (without iterations: on one line)."""
        found = [usage for usage in self.by_expression() if usage.temporaries]
        return sorted(found, key=lambda usage: -usage.temporary_bytes)

    def peak(self) -> list[Usage]:
        """Lines that had made what was alive when most was, most bytes first."""
        return sorted((usage for usage in self.by_line() if usage.peak_bytes), key=lambda usage: -usage.peak_bytes)

    def working_set(self) -> WorkingSet:
        """Distinct memory of an iteration against the caches of the machine that recorded."""
        analysis = self.analysis
        sets = analysis.working_set
        median, largest = (int(np.median(sets)), int(sets.max())) if sets.size else (0, 0)
        return WorkingSet(
            analysis.iterations, median, largest, analysis.level2, analysis.level3, dict(analysis.handed_out)
        )

    def misses(self) -> list[Miss]:
        """Requests that no free memory at hand served, by size and reason, most first."""
        by = [("", self.analysis.sizes), *self._shared_sizes()]
        found = [
            Miss(size.granted, size.requested, size.misses_first, size.misses_more_alive, size.misses_given_back,
                 size.misses_refused, shared)
            for shared, sizes in by
            for size in sizes
        ]  # fmt: skip
        return sorted((miss for miss in found if miss.total), key=lambda miss: (-miss.total, miss.granted))

    def by_pool(self) -> list[PoolUsage]:
        """What was asked of each pool, most bytes first; shared pools apart. Empty in a recording of totals.

        What pools passed on to NumPy's own allocator stands under its name.
        """
        found: dict[tuple[str, bool], PoolUsage] = {}
        for sums in self.analysis.pools:
            name, shared = (ELSEWHERE, False) if sums.pool is None else (_name(sums.pool), sums.pool.shared)
            one = PoolUsage(name, shared, sums.calls, sums.bytes, sums.peak_bytes, sums.misses)
            before = found.get((name, shared))
            found[name, shared] = one if before is None else before._replace(
                calls=before.calls + one.calls, bytes=before.bytes + one.bytes, misses=before.misses + one.misses,
                peak_bytes=max(before.peak_bytes, one.peak_bytes),
            )  # fmt: skip
        return sorted(found.values(), key=lambda usage: -usage.bytes)

    def fit(self) -> Fit:
        """The smallest pool, and the plan, with which what was recorded would not have missed.

        Examples
        --------
        >>> with rtpool.handler(), rtpool.record() as rec:
        ...     image = np.zeros((480, 640))
        >>> fit = rec.trace.fit()
        >>> [entry.requested for entry in fit.plan.entries]
        [2457600]
        """
        from .fit import fit

        return fit(self.analysis.sizes, self._shared_sizes())

    def advice(self) -> list[Advice]:
        """Which temporaries ``out=`` would save, with the line to write; ``"unknown"`` where the trace cannot tell."""
        from .advice import advise

        return advise(self.by_expression())

    def diff(self, other: Trace) -> list[Difference]:
        """Lines of this trace beside those of a later one, largest change of bytes first.

        Lines are the same if file, function and text are; so moved lines are found again. Of those left over, lines are
        the same if function and text are: a program beside a copy of it.
        """
        found = []
        before, after = self.by_line(), other.by_line()
        for of_file in (True, False):
            sides = [_lines(side, of_file=of_file) for side in (before, after)]
            both = [key for key in sides[0] if key in sides[1]]
            found += [Difference(sides[0].pop(key), sides[1].pop(key)) for key in both]
            before, after = (list(side.values()) for side in sides)
        found += [Difference(usage, None) for usage in before] + [Difference(None, usage) for usage in after]
        return sorted(found, key=lambda difference: -abs(difference.change("bytes")))

    def summary(self) -> str:
        """Some lines about the whole trace, with what it does not see."""
        from .render import summary

        return summary(self)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page for browsers: one file with everything in it, of at most 2 MB however long the trace.

        It shows the bytes alive over time with iterations, ticks and spans; a part of the time can be chosen there, and
        a flame graph, lines and the source say who made what in that part. Below stand misses, and what ``out=`` would
        save. The page asks nothing of any network, and what stands in a trace cannot become code in it. The source is
        taken from where the trace says, if it is there.

        Raises
        ------
        OSError
            If the file cannot be written; what was there stays.

        Examples
        --------
        >>> import os, tempfile
        >>> with rtpool.handler(), rtpool.record() as rec:
        ...     for number in rec.iterations(range(10)):
        ...         total = (np.empty(100_000) + number).sum()
        >>> path = os.path.join(tempfile.mkdtemp(), "loop.html")
        >>> rec.trace.to_html(path)
        >>> os.path.getsize(path) < 2_000_000
        True
        """
        from .pictures import to_html

        to_html(self, path)

    def to_speedscope(self, path: str | os.PathLike[str]) -> None:
        """Write a file for speedscope: bytes, temporaries, arrays, misses, and what was alive at the peak, by stack.

        Samples are in the order of time, so that its view "time order" shows the course of the program, in bytes.
        """
        from .pictures import to_speedscope

        to_speedscope(self, path)

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Write a trace for Perfetto: bytes alive, resident size and misses over time, iterations and spans.

        With heap profiles at up to 24 moments, which Perfetto shows as flame graphs.
        """
        from .pictures import to_perfetto

        to_perfetto(self, path)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw bytes alive over time, with iterations and spans, and the lines that asked for most.

        Needs matplotlib: ``pip install rtpool[plot]``.

        Parameters
        ----------
        path : path, optional
            Where to save the picture as well.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .pictures import plot

        figure = plot(self)
        if path is not None:
            figure.savefig(path)
        return figure

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write what the trace tells as JSON: lines, expressions, misses, working set, fit."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.as_dict(), file, indent=1)

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""
        analysis, fit = self.analysis, self.fit()
        return {
            "format": "rtpool-trace-summary",
            "version": 1,
            "meta": self.file.meta,
            "complete": self.file.complete,
            "events": self.file.count,
            "lost": self.file.lost,
            "seconds": self.seconds,
            "iterations": self.iterations,
            "temporaries_within": analysis.unit,
            "peak_bytes": analysis.peak_bytes,
            "resident_bytes": self.resident_bytes,
            "page_faults": self.page_faults,
            "pools": [usage._asdict() for usage in self.by_pool()],
            "lines": [usage._asdict() for usage in self.by_line()],
            "expressions": [usage._asdict() for usage in self.by_expression()],
            "misses": [miss._asdict() for miss in self.misses()],
            "working_set": self.working_set()._asdict(),
            "fit": fit.as_dict(),
            "advice": [advice._asdict() for advice in self.advice()],
            "not_seen": BYPASS,
        }

    @property
    def resident_bytes(self) -> int:
        """The most of the whole process that was in memory while it was recorded, as far as samples go."""
        return max((sample.resident_bytes for sample in self.file.samples), default=0)

    @property
    def page_faults(self) -> int:
        """Of the whole process while it was recorded, as far as samples go."""
        samples = self.file.samples
        if not samples:
            return 0
        first, last = samples[0], samples[-1]
        return last.minor_faults + last.major_faults - first.minor_faults - first.major_faults

    def _shared_sizes(self) -> list[tuple[str, list[SizeUse]]]:
        """How blocks of each shared pool were used, by its name."""
        used = [(sums.pool, sums.sizes) for sums in self.analysis.pools]
        return [(_name(pool), sizes) for pool, sizes in used if pool is not None and pool.shared]

    def _usage(self, key: Callable[[Place], _Where]) -> list[Usage]:
        analysis = self.analysis
        sums = analysis.sums
        groups: dict[_Where, list[int]] = {}
        used = np.flatnonzero((sums["calls"] > 0) | (sums["failures"] > 0))
        for number in used.tolist():
            place = self.file.place(number)
            name = key(place) if place is not None else ("", "(no Python)", 0, None, None, 0)
            groups.setdefault(name, []).append(number)
        unit = self.seconds_a_unit
        found = []
        for name, numbers in groups.items():
            index = np.array(numbers)

            def total(field: str, index: Any = index) -> int:
                return int(sums[field][index].sum())

            frees = total("frees")
            found.append(
                Usage(
                    *name[:5],
                    total("calls"), total("bytes"), total("temporaries"), total("temporary_bytes"),
                    int(analysis.peak_by_place[index].sum()),
                    total("lifetime") * unit / frees if frees else 0.0,
                    int(sums["longest"][index].max()) * unit,
                    total("misses"), total("fallbacks"), total("failures"), total("zeroed"), total("scalars"),
                    total("remote_frees"),
                    total("warm"), int(sums["most_alive"][index].max()),
                    int(sums["least_size"][index].min()), int(sums["largest_size"][index].max()),
                    name[5],
                )
            )  # fmt: skip
        return sorted(found, key=lambda usage: (-usage.bytes, usage.file, usage.line))

    def __repr__(self) -> str:
        return f"<rtpool.Trace of {self.file.count:,} events{'' if self.file.complete else ', cut off'}>"

    def _repr_html_(self) -> str:
        """Its figures and the lines that asked for most, for notebooks."""
        from .render import summary_html

        return summary_html(self)


def _lines(usages: list[Usage], *, of_file: bool) -> dict[Any, Usage]:
    """Lines by function and text, and by file if it counts; the first, second... of the same text apart."""
    lines: dict[Any, Usage] = {}
    for usage in usages:
        key: Any = (usage.file if of_file else "", usage.function, usage.source or (usage.file, usage.line))
        while key in lines:
            key = (key, 1)
        lines[key] = usage
    return lines


def _name(pool: PoolRange) -> str:
    return pool.name or "without a name"


__all__ = ["BYPASS", "Difference", "Miss", "PoolUsage", "Trace", "Usage", "WorkingSet"]
