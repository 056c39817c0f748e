"""A loop in Cython whose results lie in a pool."""

import numpy as np
import smooth

import rtpool

signal = np.arange(100_000.0)
with rtpool.handler(rtpool.Pool("4 MiB", name="means")) as pool:
    means = smooth.smooth(signal, 5)
    assert means in pool and np.allclose(means, signal[2:-2])
    for _ in range(100):
        means = smooth.smooth(signal, 5)
    stats = pool.stats()
assert stats.growths <= 2, stats
outside = smooth.smooth(signal, 5)  # no handler: malloc, as np.empty
assert rtpool.owner(outside) is None and np.array_equal(outside, means)
held = stats.capacity_bytes / 2**20
print(f"{stats.total_count} results of {means.nbytes} bytes in {held:.1f} MiB, {stats.misses} misses")
