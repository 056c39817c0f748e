"""What pictures show of a trace, as plain values of a bounded size, however long the trace is.

Time is cut into steps and sums are kept by step and leaf: a leaf is a place of the program, or a stack where stacks
were recorded. Where that is too much, steps are taken together, and then the smallest leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .events import NEVER
from .figures import BYPASS, FORKED, text_of
from .file import Place
from .marks import Stretches
from .over_time import FIELDS, Cells

I64 = NDArray[np.int64]

NOWHERE = "(no Python)"
TOGETHER = "(smaller places, together)"
_LONGEST_TEXT = 300
_DEEPEST = 60


class Frame(NamedTuple):
    """A box of a flame graph: a function at a line, or a part of a place. `file` is empty where there is none."""

    name: str
    file: str
    line: int
    column: int  # from 1; 0: not known


class Leaf(NamedTuple):
    """Where arrays were made: the way to there from outside in, as frames, and the place itself."""

    path: tuple[Frame, ...]
    place: Place | None


class Lane(NamedTuple):
    """Iterations, ticks or spans of one name. Those that are too close to be told apart are one item together."""

    name: str
    kind: str  # "iteration", "tick" or "span"
    total: int
    items: list[tuple[float, float, int, int]]  # begin and end in seconds; how many; the number of the first


class Overview(NamedTuple):
    """What pictures show. Times are seconds from the first event.

    `cells`: sums by step and leaf; `most_alive`: bytes, a value a step of `seconds`.
    """

    seconds: float
    steps: int
    most_alive: list[int]
    resident: list[tuple[float, int]]
    lanes: list[Lane]
    leaves: list[Leaf]
    numbers: list[int]  # of the place or stack that each leaf is; -1: of several
    cells: Cells
    cell_steps: int
    notes: list[str]
    timed: bool


def overview(trace: Any, *, most_cells: int = 1 << 14, most_leaves: int = 1500, most_items: int = 600) -> Overview:
    """Take a trace together."""
    analysis = trace.detailed()
    over_time = analysis.over_time
    unit = trace.seconds_a_unit
    begin = int(over_time.edges[0])
    seconds = (int(over_time.edges[-1]) - 1 - begin) * unit
    timed = bool(trace.file.chunks)
    cells = over_time.cells() if timed else _untimed(analysis.sums)
    step, cell_steps = cells.step, -(-over_time.steps // cells.steps_together) if timed else 1
    used, leaf = np.unique(cells.place, return_inverse=True)
    cells = Cells(step, leaf.astype(np.int64), cells.sums, 1)
    kept = _largest(cells, used.size, most_leaves)
    if kept.size < used.size:
        cells = _renumbered(cells, kept, used.size)
    while cells.step.size > most_cells and cell_steps > 32:
        cells, cell_steps = _added(cells._replace(step=cells.step // 2)), -(-cell_steps // 2)
    if cells.step.size > most_cells:
        many = int(cells.place.max()) + 1
        best = _largest(cells, many, max(8, most_cells // cell_steps))
        if best.size < many:
            cells, kept = _renumbered(cells, best, many), np.append(kept, -1)[best]
    numbers = np.append(used, -1)[kept] if kept.size else used[:0]
    leaves = [_leaf(trace, number) for number in numbers.tolist()]
    if cells.place.size and int(cells.place.max()) >= len(leaves):
        leaves.append(Leaf((Frame(TOGETHER, "", 0, 0),), None))
    return Overview(
        seconds, over_time.steps, over_time.most_alive.tolist(), _resident(trace, begin, unit),
        list(_lanes(trace, begin, unit, seconds, most_items)), leaves, numbers.tolist(), cells, cell_steps,
        _notes(trace, timed), timed,
    )  # fmt: skip


def _untimed(sums: dict[str, I64]) -> Cells:
    """All sums as one step: a recording of totals has no times."""
    place = np.flatnonzero(sums["calls"] > 0)
    return Cells(np.zeros_like(place), place, {name: sums[name][place] for name in FIELDS}, 1)


def _largest(cells: Cells, leaves: int, most: int) -> I64:
    """The leaves that make most, in the order of their numbers: by bytes, calls, temporaries and misses in turn."""
    if leaves <= most:
        return np.arange(leaves)
    share = np.zeros(leaves)
    for name in ("bytes", "calls", "temporary_bytes", "misses"):
        total = np.bincount(cells.place, weights=cells.sums[name], minlength=leaves)
        share = np.maximum(share, total / max(1.0, float(total.sum())))
    return np.sort(np.argsort(-share, kind="stable")[:most])


def _renumbered(cells: Cells, kept: I64, leaves: int) -> Cells:
    """With new numbers for the leaves that are kept, and one for all others together."""
    numbers = np.full(leaves, kept.size)
    numbers[kept] = np.arange(kept.size)
    return _added(cells._replace(place=numbers[cells.place]))


def _added(cells: Cells) -> Cells:
    """Cells of the same step and leaf added up."""
    if not cells.step.size:
        return cells
    order = np.lexsort((cells.place, cells.step))
    step, place = cells.step[order], cells.place[order]
    starts = np.flatnonzero(np.concatenate([[True], (step[1:] != step[:-1]) | (place[1:] != place[:-1])]))
    sums = {name: np.add.reduceat(values[order], starts) for name, values in cells.sums.items()}
    return Cells(step[starts], place[starts], sums, 1)


# --- where ---


def shortened(text: str, most: int = _LONGEST_TEXT) -> str:
    """Text that a picture has room for."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _leaf(trace: Any, number: int) -> Leaf:
    if number < 0:
        return Leaf((Frame(TOGETHER, "", 0, 0),), None)
    place = trace.file.place(number)
    if place is None:
        return Leaf((Frame(NOWHERE, "", 0, 0),), None)
    if not trace.file.stacks:
        where = (
            Frame(shortened(place.file), place.file, 0, 0),
            Frame(shortened(place.function), place.file, place.line, 0),
            Frame(_expression(place), place.file, place.line, 0 if place.column is None else place.column + 1),
        )
        return Leaf(where, place)
    frames: list[Frame] = []
    while number:
        number, at = trace.file.stacks.get(number, (0, 0))
        outer = trace.file.places.get(at)
        if outer is not None:
            if outer == place and not frames:
                # One line makes several arrays: which one, as a box of its own.
                column = 0 if place.column is None else place.column + 1
                frames.append(Frame(_expression(place), place.file, place.line, column))
                outer = place._replace(column=None)
            name = f"{shortened(outer.function, 120)} ({shortened(outer.file.rpartition('/')[2], 80)}:{outer.line})"
            frames.append(Frame(name, outer.file, outer.line, 0 if outer.column is None else outer.column + 1))
    if len(frames) > _DEEPEST:
        left_out = Frame(f"({len(frames) - _DEEPEST} frames)", "", 0, 0)
        frames = [*frames[: _DEEPEST // 2], left_out, *frames[-_DEEPEST // 2 :]]
    return Leaf(tuple(reversed(frames)), place)


def _expression(place: Place) -> str:
    text = " ".join(text_of(place.file, place.line, place.column, place.end_column, place.end_line).split())
    return f"{place.line}: {shortened(text, 160)}" if text else f"line {place.line}"


# --- when ---


def _lanes(trace: Any, begin: int, unit: float, seconds: float, most: int) -> Iterable[Lane]:
    marks = trace.detailed().marks
    close = seconds / most

    def lane(name: str, kind: str, of: Stretches) -> Lane:
        first = np.clip((of.begin - begin) * unit, 0, seconds)
        last = np.where(of.end == NEVER, seconds, np.clip((np.minimum(of.end, NEVER) - begin) * unit, 0, seconds))
        return Lane(shortened(name, 80), kind, len(of), _merged(first, last, of.number, close, most))

    if len(marks.iterations):
        kind = "tick" if marks.is_ticks else "iteration"
        yield lane(f"{kind}s", kind, marks.iterations)
    spans = marks.spans
    names, counts = np.unique(spans.number, return_counts=True)
    for number in names[np.argsort(-counts, kind="stable")][:12].tolist():
        chosen = spans.number == number
        name = trace.file.spans.get(number, f"span {number}")
        yield lane(name, "span", Stretches(*(column[chosen] for column in spans)))


def _merged(first: Any, last: Any, number: I64, close: float, most: int) -> list[tuple[float, float, int, int]]:
    """Stretches, those closer together than can be told apart as one; all of them, if there are few."""
    if first.size > most:
        # A new item begins where the picture has room for one.
        slot = np.minimum((first / close).astype(np.int64), most) if close > 0 else np.zeros(first.size, np.int64)
        starts = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1]]))
        ends = np.maximum.reduceat(last, starts)
        counts = np.diff(np.append(starts, first.size))
        first, last, number = first[starts], np.minimum(ends, np.append(first[starts][1:], ends[-1])), number[starts]
    else:
        counts = np.ones(first.size, np.int64)
    return [
        (round(a, 9), round(max(a, b), 9), n, k)
        for a, b, n, k in zip(first.tolist(), last.tolist(), counts.tolist(), number.tolist(), strict=True)
    ]


def _resident(trace: Any, begin: int, unit: float) -> list[tuple[float, int]]:
    samples = trace.file.samples
    every = -(-len(samples) // 400) or 1
    return [(round((sample.time - begin) * unit, 9), sample.resident_bytes) for sample in samples[::every]]


def _notes(trace: Any, timed: bool) -> list[str]:
    """What a reader of any picture must know."""
    file = trace.file
    notes = []
    if not timed:
        notes.append("only sums were recorded (mode totals): there is no timeline, and temporaries are not known")
    if not file.complete:
        notes.append("cut off: the process ended before the recording did, so that its last events are missing")
    if file.lost or file.end.get("lost_by_limit"):
        notes.append(
            f"{file.lost:,} events were lost, and {file.end.get('lost_by_limit', 0)} beyond the limit: sums are too low"
        )
    forked = file.end.get("forked")
    if isinstance(forked, int) and forked:
        notes.append(f"{forked:,} children were forked: {FORKED[bool(file.meta.get('children'))]}")
    if file.end.get("dropped"):
        notes.append(f"{file.end['dropped']} older events made room for these (mode ring)")
    return [*notes, BYPASS]
