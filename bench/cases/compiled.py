"""What Numba makes of three functions: as people write them, by hand with out=, and as one compiled loop.

A compiler fuses operations, so that temporaries are never made; that is what no allocator can do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

WAYS = ("out", "numba")
NAMES = ["two_lines:100000", "two_lines:1000000", "two_lines:10000000", "distance:1000000", "moving:1080"]


def build(name: str, *, way: str = "plain") -> Callable[[], Any]:
    kind, _, argument = name.partition(":")
    make = {"two_lines": _two_lines, "distance": _distance, "moving": _moving}[kind]
    found: Callable[[], Any] = make(int(argument), way)
    return found


def _two_lines(n: int, way: str) -> Callable[[], Any]:
    """uint8 to float64, then scaled."""
    image = np.random.default_rng(0).integers(0, 256, n, dtype=np.uint8)
    if way == "plain":

        def plain() -> Any:
            values = image.astype(np.float64)
            return values / 255.0

        return plain
    if way == "out":
        scratch, out = np.empty(n), np.empty(n)

        def by_hand() -> Any:
            np.copyto(scratch, image)
            return np.divide(scratch, 255.0, out=out)

        return by_hand
    import numba

    @numba.njit
    def compiled(values: Any) -> Any:
        result = np.empty(values.size, np.float64)
        for i in range(values.size):
            result[i] = values[i] / 255.0
        return result

    return lambda: compiled(image)


def _distance(n: int, way: str) -> Callable[[], Any]:
    """The sum of the distances of points in space from one of them: a number comes out, all arrays are temporaries."""
    rng = np.random.default_rng(0)
    x, y, z = rng.random(n), rng.random(n), rng.random(n)
    if way == "plain":
        return lambda: np.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2).sum()
    if way == "out":
        total, part = np.empty(n), np.empty(n)

        def by_hand() -> Any:
            np.square(np.subtract(x, 0.5, out=total), out=total)
            for values in (y, z):
                np.square(np.subtract(values, 0.5, out=part), out=part)
                np.add(total, part, out=total)
            return np.sqrt(total, out=total).sum()

        return by_hand
    import numba

    @numba.njit
    def compiled(x: Any, y: Any, z: Any) -> float:
        total = 0.0
        for i in range(x.size):
            total += np.sqrt((x[i] - 0.5) ** 2 + (y[i] - 0.5) ** 2 + (z[i] - 0.5) ** 2)
        return total

    return lambda: compiled(x, y, z)


def _moving(height: int, way: str) -> Callable[[], Any]:
    """How many values of a grey frame differ from a background after a blur of three lines."""
    width = height * 16 // 9
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width), dtype=np.uint8)
    background = rng.integers(0, 256, (height - 2, width)).astype(np.float32)
    third, threshold = np.float32(1 / 3), np.float32(40)
    if way == "plain":

        def plain() -> Any:
            image = frame.astype(np.float32)
            blurred = (image[:-2] + image[1:-1] + image[2:]) * third
            return np.count_nonzero(np.abs(blurred - background) > threshold)

        return plain
    if way == "out":
        image_, blurred_ = np.empty((height, width), np.float32), np.empty((height - 2, width), np.float32)
        moving_ = np.empty((height - 2, width), np.bool_)

        def by_hand() -> Any:
            np.copyto(image_, frame)
            np.add(image_[:-2], image_[1:-1], out=blurred_)
            np.add(blurred_, image_[2:], out=blurred_)
            np.multiply(blurred_, third, out=blurred_)
            np.subtract(blurred_, background, out=blurred_)
            np.greater(np.abs(blurred_, out=blurred_), threshold, out=moving_)
            return np.count_nonzero(moving_)

        return by_hand
    import numba

    @numba.njit
    def compiled(frame: Any, background: Any) -> int:
        count = 0
        for y in range(frame.shape[0] - 2):
            for x in range(frame.shape[1]):
                total = np.float32(frame[y, x]) + np.float32(frame[y + 1, x]) + np.float32(frame[y + 2, x])
                if abs(total * third - background[y, x]) > threshold:
                    count += 1
        return count

    return lambda: compiled(frame, background)
