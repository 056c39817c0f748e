"""A whole application draws from one pool: `rtpool.activate()` at its start, and no other line changes.

It holds in every thread, also in those of libraries. `malloc="tune"` does the like for memory that bypasses NumPy's
handler, such as the scratch of sorts.
"""

from __future__ import annotations

import threading

import numpy as np

import rtpool


def simulate(seed: int, results: list[float]) -> None:
    """Price an option by Monte Carlo."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        steps = rng.standard_normal((50, 4_000)) * 0.02
        paths = 100 * np.exp(np.cumsum(steps, axis=0))
        results.append(float(np.maximum(np.sort(paths[-1]) - 100, 0).mean()))


def main() -> None:
    before = np.arange(1_000_000.0)  # from NumPy's own allocator, and freed there

    pool = rtpool.activate(malloc="tune")
    results: list[float] = []
    threads = [threading.Thread(target=simulate, args=(seed, results)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    during = before * 2
    print(f"price {np.mean(results):.2f} from {len(results)} runs in {len(threads)} threads")
    print(f"before: {rtpool.owner(before)}\nduring: {rtpool.owner(during)}")

    rtpool.deactivate()
    print(f"after:  {rtpool.owner(np.empty(1000))}; what was made before stays valid: {during[-1]:,.0f}")
    print(f"hits: {pool.stats().hits:,} of {pool.stats().total_count:,} requests")


if __name__ == "__main__":
    main()
