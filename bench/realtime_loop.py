"""The loop that bench/realtime.py compares: its work, written plainly and by hand, and the process of a contestant.

    python bench/realtime_loop.py CONTESTANT PERIOD TURN PRIORITY

A turn of so many seconds for every line on standard input; the figures at its end, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rtpool
from rtpool import _core
from rtpool._realtime.process import collector

SHAPE = (480, 640)
WARMUP = 300

Step = Callable[[int], object]


def make_inputs() -> tuple[list[Any], Any, Any]:
    random = np.random.default_rng(5)
    frames = [random.integers(0, 255, SHAPE, np.uint8) for _ in range(8)]
    return frames, random.random((6, 6)) + 6 * np.eye(6), random.random(6)


def plain_step() -> Step:
    """The work as one writes it."""
    frames, matrix, right = make_inputs()
    previous = frames[-1].astype(np.float32)

    def step(index: int) -> object:
        nonlocal previous
        image = frames[index % 8].astype(np.float32)
        blurred = (image[:-2] + image[1:-1] + image[2:]) * np.float32(1 / 3)
        moved = np.abs(image - previous) > 40
        canvas = np.zeros(SHAPE, np.float32)
        canvas[1:-1] = blurred * moved[1:-1]
        previous = image
        return np.linalg.solve(matrix, right * canvas[240, 320])

    return step


def step_by_hand() -> Step:
    """The same with out= and buffers that are made once."""
    frames, matrix, right = make_inputs()
    images = [frames[-1].astype(np.float32), np.empty(SHAPE, np.float32)]
    blurred = np.empty((SHAPE[0] - 2, SHAPE[1]), np.float32)
    difference, moved = np.empty(SHAPE, np.float32), np.empty(SHAPE, bool)
    canvas, scaled = np.empty(SHAPE, np.float32), np.empty(6)
    for buffer in (*images[1:], blurred, difference, moved, canvas):
        buffer.fill(0)  # resident, as rtpool's blocks are

    def step(index: int) -> object:
        previous, image = images[index % 2], images[(index + 1) % 2]
        np.copyto(image, frames[index % 8])
        np.add(image[:-2], image[1:-1], out=blurred)
        np.add(blurred, image[2:], out=blurred)
        np.multiply(blurred, np.float32(1 / 3), out=blurred)
        np.subtract(image, previous, out=difference)
        np.abs(difference, out=difference)
        np.greater(difference, 40, out=moved)
        canvas.fill(0)
        np.multiply(blurred, moved[1:-1], out=canvas[1:-1])
        np.multiply(right, canvas[240, 320], out=scaled)
        return np.linalg.solve(matrix, scaled)

    return step


class OwnLoop:
    """The section's loop with nothing of rtpool's memory in it, for the other contestants."""

    def __init__(
        self, period: int, *, warmup: int, iterations: int = -1, duration: int = -1, priority: int = 0
    ) -> None:
        self.warm = warmup <= 1
        self.loop = _core.Loop(period, False, 0, warmup, iterations, duration, self.warming_up)
        self.settings = _core.MachineSettings()
        self.priority = priority

    def warming_up(self, left: int) -> None:
        if left == 1:
            collector.enter("freeze")

    def __enter__(self) -> OwnLoop:
        if self.warm:
            collector.enter("freeze")
        self.settings.apply(None, False, -1, self.priority, False)
        self.loop.start(True)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.finish()
        collector.leave("freeze")
        self.settings.restore()

    def __iter__(self) -> Iterator[_core.Tick]:
        return iter(self.loop)


def figures(loop: _core.Loop) -> dict[str, Any]:
    """What a loop recorded; seconds."""
    iterations, overruns, skipped, collections, _, _, usage, watched, _ = loop.totals()
    result: dict[str, Any] = {"iterations": iterations, "overruns": overruns, "skipped": skipped}
    for name, of in (("work", loop.durations()), ("late", loop.lateness())):
        quantiles = {f"p{q:g}": of.percentile(q) for q in (50, 90, 99, 99.9, 99.99)}
        result[name] = {"min": of.min, "mean": of.mean, **quantiles, "max": of.max}
    names = ("minor_faults", "major_faults", "voluntary_switches", "involuntary_switches")
    result |= dict(zip(names, usage, strict=True))
    result |= {"collections": collections, "watched": watched}
    result["first_100"] = [value * 1e-9 for value in loop.first()[:100]]
    return result


def worker(name: str, period: float, turn: float, priority: int) -> None:
    """A contestant's process."""
    step = step_by_hand() if name == "out" else plain_step()
    section: Any
    if name == "rtpool":
        section = rtpool.realtime(
            period, warmup=WARMUP, duration=turn, pool=rtpool.Pool(name="frames"), priority=priority or None
        )
    else:
        section = OwnLoop(round(period * 1e9), warmup=WARMUP, duration=round(turn * 1e9), priority=priority)
    with section:
        for _ in sys.stdin:
            for tick in section:
                step(tick.index)
            print("done", flush=True)
        loop = section._loop if name == "rtpool" else section.loop
        result = figures(loop)
    if name == "rtpool":
        report = section.report
        result |= {"kernel_calls": report.kernel_calls, "misses": report.misses, "zeroed_ahead": report.zeroed_ahead}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    worker(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
