"""Traces as pictures: a page, and files of other programs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .. import _core
from .._pictures.page import page
from .._pictures.perfetto import BYTES, COUNT, Writer
from .._pictures.speedscope import Profile, speedscope
from .overview import Overview, overview, shortened
from .page_data import page_data, program
from .render import foot, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_BYTES = 2_000_000  # of a page
_HEAPS = 24  # heap profiles in a trace for Perfetto
_PROFILES = (
    ("bytes", "bytes asked for", "bytes"), ("temporary_bytes", "bytes of temporaries", "bytes"),
    ("calls", "arrays", "none"), ("misses", "misses", "none"),
)  # fmt: skip


def html(trace: Any) -> str:
    """The page of a trace, of at most `MOST_BYTES`: what does not fit is shown in larger steps, or together."""
    scale = 1.0
    while True:
        text = page(f"rtpool: {program(trace)}"[:200], page_data(trace, scale))
        if len(text.encode()) <= MOST_BYTES:
            return text
        scale /= 2


def to_html(trace: Any, path: str | os.PathLike[str]) -> None:
    """Write the page; the file is replaced as a whole."""
    text = html(trace).encode()
    with _replaced(path) as file:
        file.write(text)


def to_speedscope(trace: Any, path: str | os.PathLike[str]) -> None:
    """Write profiles for speedscope."""
    found = overview(trace, most_cells=1 << 17, most_leaves=1 << 14)
    frames, stacks = _numbered(found)
    profiles = []
    for field, name, unit in _PROFILES:
        values = found.cells.sums[field]
        used = np.flatnonzero(values > 0)
        if used.size:
            samples = [stacks[leaf] for leaf in found.cells.place[used].tolist()]
            profiles.append(Profile(name, unit, samples, values[used].tolist()))
    at_peak = trace.analysis.peak_by_place
    peak = [(number, size) for number, size in enumerate(at_peak.tolist()) if size > 0]
    if peak:
        leaves = {number: leaf for leaf, number in enumerate(found.numbers) if number >= 0}
        samples = [stacks[leaves[number]] for number, _ in peak if number in leaves]
        weights = [size for number, size in peak if number in leaves]
        if samples:
            profiles.append(Profile("alive at the peak", "bytes", samples, weights))
    if not profiles:
        profiles = [Profile("bytes asked for", "bytes", [], [])]
    if resident := trace.resident_bytes:
        # What the others cannot tell, as a box as large as the process was.
        frames.append((foot(trace), "", 0, 0))
        profiles.append(Profile("process resident at most", "bytes", [[len(frames) - 1]], [resident]))
    data = speedscope(program(trace), frames, profiles, f"rtpool {_core.__version__}")
    with _replaced(path) as file:
        file.write(json.dumps(data, separators=(",", ":")).encode())


def to_perfetto(trace: Any, path: str | os.PathLike[str]) -> None:
    """Write a trace for Perfetto: its own format."""
    found = overview(trace, most_cells=1 << 18, most_leaves=1 << 14, most_items=1 << 16)
    process = trace.file.meta.get("process")
    with _replaced(path) as file:
        writer = Writer(file, process if isinstance(process, int) and 0 < process < 1 << 31 else 1, program(trace))
        _write_counters(writer, found)
        for lane in found.lanes:
            writer.slices(
                writer.lane(lane.name),
                (
                    (round(begin * 1e9), round(end * 1e9), _slice_name(lane.kind, lane.name, many, first))
                    for begin, end, many, first in lane.items
                ),
            )
        # What is true of all of it, beside the counter of the resident size.
        writer.slices(writer.lane("rtpool"), ((0, round(found.seconds * 1e9), note) for note in found.notes))
        _write_heaps(writer, found)


def _slice_name(kind: str, name: str, many: int, first: int) -> str:
    one = name if kind == "span" else f"{kind} {first}"
    return one if many == 1 else f"{one} and {many - 1} more"


def _write_counters(writer: Writer, found: Overview) -> None:
    step = found.seconds * 1e9 / found.steps
    alive, resident = writer.counter("array bytes alive", BYTES), writer.counter("process resident", BYTES)
    if found.timed:
        for number, value in enumerate(found.most_alive):
            writer.count(alive, round(number * step), value)
    for time, value in found.resident:
        writer.count(resident, max(0, round(time * 1e9)), value)
    misses = np.zeros(found.cell_steps, np.int64)
    np.add.at(misses, found.cells.step, found.cells.sums["misses"])
    if misses.any():
        track = writer.counter("misses", COUNT)
        for number, value in enumerate(np.cumsum(misses).tolist()):
            writer.count(track, round((number + 1) * found.seconds * 1e9 / found.cell_steps), value)


def _write_heaps(writer: Writer, found: Overview) -> None:
    """Heap profiles at some moments: Perfetto draws a flame graph of each."""
    frames, ways = _numbered(found)
    # Places that differ by the instruction alone look the same, and are one stack to Perfetto.
    distinct: dict[tuple[int, ...], int] = {}
    stack_of = np.array([distinct.setdefault(tuple(way), len(distinct)) for way in ways], np.int64)
    stacks = list(distinct)
    writer.names([(name, file) for name, file, _, _ in frames], stacks)
    cells = found.cells
    sums = {name: np.zeros(len(stacks), np.int64) for name in ("bytes", "freed_bytes", "calls", "frees")}
    moments = np.unique(np.linspace(0, found.cell_steps, min(_HEAPS, found.cell_steps) + 1).astype(int)).tolist()
    for index, (begin, end) in enumerate(pairwise(moments)):
        part = slice(*np.searchsorted(cells.step, [begin, end]).tolist())
        for name, total in sums.items():
            np.add.at(total, stack_of[cells.place[part]], cells.sums[name][part])
        used = np.flatnonzero(sums["calls"] > 0).tolist()
        samples = []
        for stack in used:
            made, freed, calls, frees = (int(total[stack]) for total in sums.values())
            samples.append((stack, made, min(made, freed), calls, min(calls, frees)))
        writer.heap(index, round(end * found.seconds * 1e9 / found.cell_steps), samples)


def _numbered(found: Overview) -> tuple[list[tuple[str, str, int, int]], list[list[int]]]:
    """All frames, each once, and each leaf's way as their numbers."""
    numbers: dict[tuple[str, str, int, int], int] = {}
    stacks = [
        [numbers.setdefault((frame.name, frame.file, frame.line, frame.column), len(numbers)) for frame in leaf.path]
        for leaf in found.leaves
    ]
    return list(numbers), stacks


def plot(trace: Any) -> Figure:
    """Draw the figure."""
    from .._pictures.figure import draw

    found = overview(trace)
    step = found.seconds / found.steps
    edges = [step * number for number in range(found.steps + 1)]
    begin = int(trace.analysis.over_time.edges[0])
    peak = ((trace.analysis.peak_time - begin) * trace.seconds_a_unit, trace.analysis.peak_bytes)
    lanes = [(lane.name, [(first, last) for first, last, _, _ in lane.items]) for lane in found.lanes[:6]]
    lines = [
        (f"{short(usage.file)}:{usage.line}" if usage.file else usage.function, usage.bytes, usage.temporary_bytes)
        for usage in trace.by_line()[:8]
    ]
    title = f"{shortened(program(trace), 90)}: {trace.file.count:,} events, {trace.iterations:,} iterations"
    alive = (edges, found.most_alive) if found.timed else None
    return draw(title, alive, peak, lanes, [(name[-60:], *sums) for name, *sums in lines], foot(trace))


@contextlib.contextmanager
def _replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes the place of what is there once it is written, as a whole or not at all."""
    partial = f"{os.fspath(path)}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
