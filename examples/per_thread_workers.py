"""Workers with memory of their own: `handler(per_thread=True)` gives each thread a private pool of the same options.

No worker can use up another's memory, and each pool's figures are those of one thread.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import rtpool

scope = rtpool.handler(rtpool.Pool("8 MiB", name="worker", limit="32 MiB"), per_thread=True)
pools: dict[str, rtpool.Pool] = {}


@scope
def smooth(seed: int) -> float:
    """Everything this function allocates comes from its thread's pool."""
    pools[threading.current_thread().name] = scope.pool
    signal = np.random.default_rng(seed).standard_normal(200_000)
    for _ in range(5):
        signal = (signal[:-2] + signal[1:-1] + signal[2:]) / 3
    return float(signal.std())


def main() -> None:
    with ThreadPoolExecutor(3, thread_name_prefix="thread") as workers:
        results = list(workers.map(smooth, range(60)))
    print(f"mean deviation {np.mean(results):.4f} over {len(results)} signals")
    for thread, pool in sorted(pools.items()):
        stats = pool.stats()
        print(f"{thread}: {pool.name!r} served {stats.total_count} arrays, at most {stats.peak_count} at once")


if __name__ == "__main__":
    main()
