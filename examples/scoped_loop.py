"""A loop with temporaries, unchanged but for one line: `with rtpool.handler():`.

The loop makes several arrays an iteration. With NumPy's default the kernel provides their memory anew each time (page
faults); inside the handler they get the same warm memory again.
"""

from __future__ import annotations

import resource
import time

import numpy as np

import rtpool


def step(frame: np.ndarray) -> int:
    """One iteration as anyone would write it."""
    scaled = frame.astype(np.float64)
    scaled = scaled / 255.0
    grey = scaled[..., 0] * 0.299 + scaled[..., 1] * 0.587 + scaled[..., 2] * 0.114
    difference = np.abs(grey[1:] - grey[:-1])
    return int(np.count_nonzero(difference > 0.5))


def measure(frame: np.ndarray, iterations: int = 40) -> tuple[float, float]:
    """Median milliseconds and page faults of one iteration."""
    for _ in range(3):
        step(frame)
    times = []
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(iterations):
        start = time.perf_counter()
        step(frame)
        times.append(time.perf_counter() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return float(np.median(times)) * 1e3, faults / iterations


def main() -> None:
    frame = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), np.uint8)
    time_default, faults_default = measure(frame)
    with rtpool.handler() as pool:
        time_pooled, faults_pooled = measure(frame)
    print(f"NumPy's default  {time_default:7.2f} ms  {faults_default:7.0f} page faults an iteration")
    print(f"in the handler   {time_pooled:7.2f} ms  {faults_pooled:7.0f} page faults an iteration")
    print()
    print(pool.stats())


if __name__ == "__main__":
    main()
