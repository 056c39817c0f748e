"""OpenCV's matrices in the memory of a pool."""

import numpy as np
import rotate

import rtpool

image = np.arange(480 * 640, dtype=np.uint32).astype(np.uint8).reshape(480, 640)
with rtpool.handler(rtpool.Pool("4 MiB", name="opencv")) as pool:
    turned = rotate.rotate(image)
    assert turned in pool and np.array_equal(turned, np.rot90(image, -1))
    before = pool.stats()
    for _ in range(100):
        turned = rotate.rotate(image)
    loop = pool.stats() - before
assert loop.misses <= 2 and loop.kernel_calls == 0, loop
del turned
assert pool.stats().current_count == 0
print(f"{loop.total_count} matrices of {image.nbytes} bytes, {loop.misses} misses")
