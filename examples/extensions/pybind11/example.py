"""Frames of a camera written with pybind11, in a pool."""

import camera

import rtpool

device = camera.Camera(1080, 1920)
with rtpool.handler(rtpool.Pool("16 MiB", name="frames")) as pool:
    first = device.grab()
    assert first in pool and first[2, 3] == 6
    for _ in range(100):
        frame = device.grab()
        assert frame in pool
    stats = pool.stats()
assert first[2, 3] == 6 and stats.current_count == 2
print(f"{stats.total_count} frames of {frame.nbytes} bytes in {stats.capacity_bytes / 2**20:.0f} MiB")
