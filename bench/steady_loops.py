"""The loops that bench/steady.py watches, and the process of a contestant.

    python bench/steady_loops.py LOOP CONTESTANT PERIOD SECONDS WARMUP

Says `warm` on standard output when its first measured iteration begins, and its figures, as JSON, at the end.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Step = Callable[[int], object]


def dictionaries() -> Step:
    """20,000 dictionaries and their JSON."""

    def step(index: int) -> object:
        return json.dumps([{"i": i, "v": (i, float(i))} for i in range(20_000)])

    return step


def lists() -> Step:
    """`tolist` of 200,000 values and a list comprehension over it."""
    values = np.random.default_rng(1).random(200_000)

    def step(index: int) -> object:
        return [value * 2.0 for value in values.tolist()]

    return step


def table() -> Step:
    """A group-by of pandas and a rolling mean."""
    import pandas

    random = np.random.default_rng(2)
    frame = pandas.DataFrame({"key": random.integers(0, 200, 20_000), "value": random.random(20_000)})

    def step(index: int) -> object:
        groups = frame.groupby("key")["value"].agg(["mean", "std", "max"])
        return groups, frame["value"].rolling(50).mean()

    return step


def contours() -> Step:
    """Objects tracked by their contours with OpenCV, their track smoothed by a filter of SciPy."""
    import cv2
    from scipy import signal

    cv2.setNumThreads(1)
    numerator, denominator = signal.butter(3, 0.1)
    track: list[tuple[float, float]] = [(0.0, 0.0)] * 200
    y, x = np.mgrid[0:240, 0:320]

    def step(index: int) -> object:
        at = 160 + 100 * np.cos(index / 30), 120 + 60 * np.sin(index / 20)
        image = (255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 400)).astype(np.uint8)
        blurred = cv2.GaussianBlur(image, (5, 5), 0)
        _, mask = cv2.threshold(blurred, 100, 255, cv2.THRESH_BINARY)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        moments = cv2.moments(max(found, key=cv2.contourArea))
        track.append((moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]))
        del track[0]
        return signal.filtfilt(numerator, denominator, np.array(track), axis=0)[-1]

    return step


def controller() -> Step:
    """A Kalman filter of filterpy and a controller, with a line of log each time."""
    import logging

    from filterpy.common import Q_discrete_white_noise
    from filterpy.kalman import KalmanFilter

    kalman = KalmanFilter(dim_x=4, dim_z=2)
    dt = 0.01
    kalman.F = np.array([[1, dt, 0, 0], [0, 1, 0, 0], [0, 0, 1, dt], [0, 0, 0, 1.0]])
    kalman.H = np.array([[1, 0, 0, 0], [0, 0, 1, 0.0]])
    kalman.R *= 0.05
    kalman.P *= 10
    kalman.Q = Q_discrete_white_noise(2, dt, 0.1, block_size=2)
    gain = np.array([[2.0, 0.6, 0, 0], [0, 0, 2.0, 0.6]])
    random = np.random.default_rng(3)
    log = logging.getLogger("controller")
    log.propagate = False
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(os.path.join(tempfile.mkdtemp(prefix="rtpool-steady-"), "controller.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)

    def step(index: int) -> object:
        target = np.array([np.cos(index * dt), np.sin(index * dt)])
        kalman.predict()
        kalman.update(target + random.normal(0, 0.05, 2))
        command = -gain @ kalman.x
        log.info("step %d: position %.3f %.3f, command %s", index, kalman.x[0, 0], kalman.x[2, 0], command.ravel())
        return command

    return step


def workers() -> Step:
    """The controller, and four workers of a ThreadPoolExecutor with images, transforms and sorts of NumPy."""
    control = controller()
    executor = ThreadPoolExecutor(4)
    random = np.random.default_rng(4)
    parts = [random.random((256, 256)) for _ in range(4)]

    def work(part: Any) -> float:
        edges = np.abs(part[1:] - part[:-1]) > 0.5
        smooth = np.fft.rfft(part[::4], axis=1)[:, :40]
        middle = np.sort(part[:32], axis=None)[4096]
        return float(middle + np.abs(smooth).mean() + edges.sum() + (part[:64] @ part).trace())

    def step(index: int) -> object:
        sums = executor.map(work, parts)
        return control(index), sum(sums)

    return step


LOOPS: dict[str, Callable[[], Step]] = {
    "dictionaries": dictionaries,
    "lists": lists,
    "table": table,
    "contours": contours,
    "controller": controller,
    "workers": workers,
}
# What cannot run without it.
NEEDS = {"table": ("pandas",), "contours": ("cv2", "scipy"), "controller": ("filterpy",), "workers": ("filterpy",)}


def worker(loop: str, contestant: str, period: float, seconds: float, warmup: int) -> None:
    """A contestant's process."""
    import rtpool

    step = LOOPS[loop]()
    section: Any
    if contestant == "rtpool":
        rtpool.activate(malloc="tune")  # the arrays of the program's other threads as well
        section = rtpool.realtime(period, warmup=warmup, duration=seconds)
    else:
        from realtime_loop import OwnLoop

        section = OwnLoop(round(period * 1e9), warmup=warmup, duration=round(seconds * 1e9))
    with section:
        for tick in section:
            if tick.index == 0:
                os.write(1, b"warm\n")
            step(tick.index)
    from realtime_loop import figures

    result = figures(section._loop if contestant == "rtpool" else section.loop)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result["peak_kib"] = usage.ru_maxrss
    if contestant == "rtpool":
        result["report"] = str(section.report)
    print(json.dumps(result), flush=True)
    os._exit(0)  # what a worker thread still holds is no affair of the measurement


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
