"""What a trace's page shows: an overview, the program's source with it, advice, misses; as JSON can hold it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import source
from .advice import UNKNOWN, Advice
from .facts import facts
from .file import Place
from .over_time import FIELDS
from .overview import TOGETHER, Frame, Leaf, Overview, overview, shortened

_INSTALLED = ("/site-packages/", "/dist-packages/")
_CONTEXT = 2  # lines of source around those that made arrays


def program(trace: Any) -> str:
    """What was recorded, in a line."""
    arguments = trace.file.meta.get("arguments")
    text = " ".join(map(str, arguments)) if isinstance(arguments, list) else ""
    return shortened("".join(c if c.isprintable() else "?" for c in text) or "a process", 160)


def page_data(trace: Any, scale: float = 1.0) -> dict[str, Any]:
    """All of it; `scale` below 1 gives less, for pages that would be too long."""

    def most(number: int) -> int:
        return max(4, int(number * scale))

    found = overview(trace, most_cells=most(1 << 14), most_leaves=most(1500), most_items=most(600))
    frames, expressions, leaves = _numbered(found)
    names = dict.fromkeys([file for _, file, *_ in frames if file] + [place.file for place in expressions])
    files = {file: number for number, file in enumerate(names)}
    cells = found.cells
    return {
        "title": program(trace),
        "facts": facts(trace),
        "notes": [shortened(note) for note in found.notes],
        "timed": found.timed,
        "seconds": found.seconds,
        "steps": found.steps,
        "alive": found.most_alive,
        "resident": found.resident,
        "lanes": [lane._asdict() for lane in found.lanes],
        "frames": [
            (shortened(name) if line or not file else shown_file(trace, file), files.get(file, -1))
            for name, file, line, _ in frames
        ],
        "leaves": leaves,
        "cellSteps": found.cell_steps,
        "cells": {
            "step": _steps(cells.step.tolist()),
            "leaf": cells.place.tolist(),
            **{name: cells.sums[name].tolist() for name in FIELDS if name != "frees"},
        },
        "expressions": [_expression(place, files) for place in expressions],
        "files": _files(trace, files, _by_weight(found, leaves, expressions), most(400)),
        "misses": [
            (
                miss.granted,
                miss.total,
                miss.first,
                miss.more_alive,
                miss.given_back,
                miss.refused,
                shortened(miss.shared, 80),
            )
            for miss in trace.misses()[: most(40)]
        ],
        "peak": _peak(trace, found),
        "fit": f"the smallest pool with no miss: {'; '.join(str(trace.fit()).splitlines())}"[:300],
        "advice": [_advice(trace, entry) for entry in trace.advice()[: most(60)]],
    }


def _advice(trace: Any, entry: Advice) -> dict[str, Any]:
    usage = entry.usage
    return {
        "where": f"{shown_file(trace, usage.file)}:{usage.line} in {shortened(usage.function)}",
        "expression": shortened(entry.expression),
        "before": shortened(entry.before),
        "instead": shortened(entry.instead if entry.instead != UNKNOWN else ""),
        "reason": shortened(entry.reason),
        "bytes": sum(one.bytes for one in entry.usages),
        "calls": sum(one.calls for one in entry.usages),
        "installed": any(folder in usage.file for folder in _INSTALLED),
    }


def shown_file(trace: Any, file: str) -> str:
    """A path, as seen from where the program ran; library folders without what leads to them."""
    for folder in _INSTALLED:
        if folder in file:
            return shortened(file.partition(folder)[2])
    directory = trace.file.meta.get("directory")
    if isinstance(directory, str) and directory and file.startswith(directory.rstrip("/") + "/"):
        return shortened(file[len(directory.rstrip("/")) + 1 :])
    return shortened(file)


def _peak(trace: Any, found: Overview) -> dict[str, Any]:
    """When most was alive, and what of it is each leaf's."""
    analysis = trace.detailed()
    by_place = analysis.peak_by_place
    leaves = [int(by_place[number]) if 0 <= number < by_place.size else 0 for number in found.numbers]
    leaves += [0] * (len(found.leaves) - len(leaves))
    if found.leaves and found.leaves[-1].path[0].name == TOGETHER:
        leaves[-1] += max(0, analysis.peak_bytes - sum(leaves))
    begin = int(analysis.over_time.edges[0])
    time = min(max(0.0, (analysis.peak_time - begin) * trace.seconds_a_unit), found.seconds)
    return {"time": time, "bytes": analysis.peak_bytes, "leaves": leaves}


def _numbered(found: Overview) -> tuple[list[Frame], list[Place], list[tuple[int, list[int]]]]:
    """All frames and expressions once, and each leaf as numbers of these."""
    frames: dict[Frame, int] = {}
    expressions: dict[Place, int] = {}
    leaves = []
    for leaf in found.leaves:
        place = _place_of(leaf)
        at = expressions.setdefault(place, len(expressions))
        leaves.append((at, [frames.setdefault(frame, len(frames)) for frame in leaf.path]))
    return list(frames), list(expressions), leaves


def _place_of(leaf: Leaf) -> Place:
    return leaf.place if leaf.place is not None else Place("", leaf.path[-1].name, 0, 0, None, None)


def _steps(steps: list[int]) -> list[int]:
    """Each as the difference to the one before, which takes less room."""
    return [step - before for before, step in zip([0, *steps], steps, strict=False)]


def _expression(place: Place, files: dict[str, int]) -> tuple[int, str, int, int, int]:
    """File, function, line, and the columns as a browser counts characters; -1: not known."""
    begin, end = -1, -1
    if place.column is not None and place.end_column is not None:
        text = source.line(place.file, place.line)
        begin = _characters(text, place.column)
        end = _characters(text, place.end_column) if place.end_line == place.line else 0
    number = files[place.file] if place.file else -1
    return number, shortened(place.function), place.line, begin, end


def _characters(text: str, column: int) -> int:
    """A column in UTF-8 bytes, in UTF-16 units."""
    before = text.encode("utf-8", "replace")[:column].decode("utf-8", "replace")
    return len(before.encode("utf-16-le", "replace")) // 2


def _by_weight(found: Overview, leaves: list[tuple[int, list[int]]], expressions: list[Place]) -> list[Place]:
    """Expressions, those that made most bytes first."""
    weights = [0] * len(expressions)
    sums = np.bincount(found.cells.place, weights=found.cells.sums["bytes"], minlength=len(leaves))
    for (at, _), size in zip(leaves, sums.tolist(), strict=True):
        weights[at] += int(size)
    return [expressions[at] for at in sorted(range(len(expressions)), key=lambda at: -weights[at])]


def _files(trace: Any, files: dict[str, int], expressions: list[Place], most: int) -> list[dict[str, Any]]:
    """Each file with the lines that made arrays and some around them; the lines that made most, if there are many."""
    wanted: dict[str, set[int]] = {file: set() for file in files}
    for place in expressions:
        if place.file and sum(map(len, wanted.values())) < most:
            wanted[place.file] |= set(range(max(1, place.line - _CONTEXT), place.line + _CONTEXT + 1))
    begun = trace.file.meta.get("begun")
    shown = []
    for file, numbers in wanted.items():
        there = source.lines(file) if numbers else []
        lines = {number: there[number - 1].rstrip("\n") for number in sorted(numbers) if 0 < number <= len(there)}
        note = ""
        if numbers and not there:
            note = "the source is not there"
        elif there and isinstance(begun, (int, float)) and _changed_since(file, begun):
            note = "changed since it was recorded: lines and columns may not fit"
        shown.append(
            {
                "name": shown_file(trace, file),
                "note": note,
                "lines": {number: _cut(text) for number, text in lines.items()},
            }
        )
    return shown


def _cut(text: str) -> str:
    """A line of source; very long ones are cut."""
    return shortened("".join(c if c.isprintable() or c == "\t" else " " for c in text).expandtabs(1), 400)


def _changed_since(file: str, moment: float) -> bool:
    try:
        return os.path.getmtime(file) > moment
    except (OSError, ValueError):
        return False
