"""A cache of images, and canvases assembled from it again and again.

The images lie in a pool, resident before the first frame. Each frame puts a choice of them side by side into the same
canvas. That copy is larger than any cache, so NumPy reads every line of the canvas only to overwrite it; rtpool writes
whole lines past the cache. Next to it: the same through `copyto`, for layouts that are no simple row of images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import rtpool

Image = np.ndarray


def make_image(number: int, size: int) -> Image:
    """Stands for a decoder: a gradient with a colour of its own, opaque."""
    ramp = np.linspace(0, 255, size, dtype=np.uint8)
    image = np.empty((size, size, 4), np.uint8)
    image[..., 0] = ramp[:, None]
    image[..., 1] = ramp
    image[..., 2] = number * 37 % 256
    image[..., 3] = 255
    return image


class ImageCache:
    """Images by number, made at the first request and kept in `pool`."""

    def __init__(self, pool: rtpool.Pool, size: int) -> None:
        self._pool = pool
        self._size = size
        self._images: dict[int, Image] = {}

    def __getitem__(self, number: int) -> Image:
        image = self._images.get(number)
        if image is None:
            with rtpool.handler(self._pool):
                image = self._images[number] = make_image(number, self._size)
        return image


def milliseconds(frames: list[list[Image]], assemble: Callable[[list[Image]], object]) -> float:
    """Median time of a frame."""
    times = []
    for images in frames:
        start = time.perf_counter()
        assemble(images)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=100)
    options.add_argument("--size", type=int, default=512, help="pixels of an image, both ways (default: 512)")
    options.add_argument("--frames", type=int, default=12)
    chosen = options.parse_args()
    count, size = chosen.images, chosen.size

    nbytes = 2 * count * (size * size * 4 + 4096) + (1 << 20)
    pool = rtpool.Pool(nbytes, name="images")
    cache = ImageCache(pool, size)
    random = np.random.default_rng(0)
    frames = [[cache[int(number)] for number in random.permutation(count)] for _ in range(chosen.frames)]
    with rtpool.handler(pool):
        canvas = rtpool.empty_aligned((size, count * size, 4), np.uint8)
    canvas[...] = 0

    def with_numpy(images: list[Image]) -> None:
        np.concatenate(images, axis=1, out=canvas)

    def with_rtpool(images: list[Image]) -> None:
        rtpool.concatenate(images, axis=1, out=canvas)

    def mirrored(images: list[Image]) -> None:
        for column, image in enumerate(images):
            rtpool.copyto(canvas[:, column * size : (column + 1) * size], image[::-1], mode="stream")

    print(f"{count} images of {size} x {size} x 4 into one canvas of {canvas.nbytes / 2**20:.0f} MiB")
    for name, assemble in (
        ("numpy.concatenate(out=)", with_numpy),
        ("rtpool.concatenate(out=)", with_rtpool),
        ("rtpool.copyto, upside down", mirrored),
    ):
        taken = milliseconds(frames, assemble)
        print(f"{name:28} {taken:7.2f} ms a frame  {canvas.nbytes / taken / 1e6:6.2f} GB/s")
    with_rtpool(frames[0])
    assert np.array_equal(canvas[:, -size:], frames[0][-1])
    assert rtpool.owner(canvas) is pool and all(image in pool for image in frames[0])
    print()
    print(pool.stats())


if __name__ == "__main__":
    main()
