"""Frames of a grabber written in C, in the memory of pools."""

import grabber

import rtpool

pool = rtpool.Pool("16 MiB", name="frames")

frame = grabber.grab(480, 640, pool=pool)
assert frame in pool and rtpool.owner(frame) is pool
assert frame[2, 3] == 5 and frame.flags.writeable

with rtpool.handler(pool):  # where np.empty draws from, so does the grabber
    other = grabber.grab(480, 640, number=7)
assert other in pool and other[2, 3] == 12

for number in range(100):
    frame = grabber.grab(480, 640, number, pool)
stats = pool.stats()
assert stats.current_count == 2 and stats.kernel_calls < 20
del frame, other
assert pool.stats().current_count == 0
held = stats.capacity_bytes / 2**20
print(f"{stats.total_count} frames, {held:.0f} MiB held, {stats.remote_frees} freed by another thread")
