"""Tasks with different pools in one thread: the handler belongs to the task that entered it, also across `await`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np

import rtpool

cameras = {name: rtpool.Pool("4 MiB", name=name) for name in ("left", "right")}


async def frames(count: int) -> AsyncIterator[np.ndarray]:
    """Stands for a camera: a frame every millisecond."""
    rng = np.random.default_rng(count)
    for _ in range(count):
        await asyncio.sleep(0.001)
        yield rng.integers(0, 255, (240, 320), np.uint8)


async def watch(name: str) -> float:
    """Every array of this task comes from the pool of its camera, whatever the others do meanwhile."""
    brightness = 0.0
    with rtpool.handler(cameras[name]) as pool:
        async for frame in frames(50):
            image = frame / 255.0
            assert image in pool
            brightness += float(image.mean()) / 50
    return brightness


async def main() -> None:
    results = await asyncio.gather(*(watch(name) for name in cameras))
    for pool, brightness in zip(cameras.values(), results, strict=True):
        stats = pool.stats()
        print(f"{pool.name}: brightness {brightness:.3f}, {stats.total_count} arrays, {stats.hits} from warm memory")
    print(f"outside of the tasks: {rtpool.owner(np.empty(10))}")


if __name__ == "__main__":
    asyncio.run(main())
