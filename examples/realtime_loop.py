"""A 100 Hz camera loop in plain NumPy: learned during its warm-up, frozen, paced by absolute deadlines, reported.

python examples/realtime_loop.py
"""

from __future__ import annotations

import numpy as np

import rtpool

camera = np.random.default_rng(1).integers(0, 255, (4, 480, 640), np.uint8)

with rtpool.realtime(0.01, warmup=20, iterations=100) as rt:
    for tick in rt:
        image = camera[tick.index % 4].astype(np.float32) / 255
        blurred = (image[:-2] + image[1:-1] + image[2:]) / 3
        canvas = np.zeros((480, 640), np.float32)  # cleared in the idle time before
        canvas[1:-1] = blurred > 0.5

print(rt.report)
print(rt.plan)
assert rt.report.misses == 0 and rt.report.kernel_calls == 0
