"""Eigen's results in the memory of a pool."""

import covariance
import numpy as np

import rtpool

samples = np.random.default_rng(1).normal(size=(500, 40))
with rtpool.handler(rtpool.Pool("4 MiB", name="eigen")) as pool:
    result = covariance.covariance(samples)
    assert result in pool and np.allclose(result, np.cov(samples.T))
    before = pool.stats()
    for _ in range(100):
        result = covariance.covariance(samples)
    loop = pool.stats() - before
assert loop.misses <= 2 and loop.kernel_calls == 0, loop
print(f"{loop.total_count} blocks for matrices in 100 calls, {loop.misses} misses")
