"""The work that is measured: code people write, and the same by hand with ``out=``.

Each builder returns a plain and a hand-written callable. Called with ``check=True`` they return what they computed, so
that results can be compared; in a measured loop they drop it, as a loop does that has used it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Step(Protocol):
    """One iteration."""

    def __call__(self, *, check: bool = False) -> Array | None: ...


class Work(NamedTuple):
    """The same iteration twice: as people write it, and with every array made at its first call and used again."""

    title: str
    plain: Step
    by_hand: Step


def one_line(n: int) -> Work:
    """Convert `n` uint8 values to float64 and scale them, in one expression."""
    image = np.random.default_rng(0).integers(0, 256, n, dtype=np.uint8)
    made: list[Array] = []

    def plain(*, check: bool = False) -> Array | None:
        result = image / 255.0
        return result if check else None

    def by_hand(*, check: bool = False) -> Array | None:
        if not made:
            made.append(np.empty(n))
        (out,) = made
        np.divide(image, 255.0, out=out)
        return out if check else None

    return Work(f"img / 255.0, n = {n:,}", plain, by_hand)


def two_lines(n: int) -> Work:
    """Convert `n` uint8 values to float64, then scale them: two blocks of 8 n bytes."""
    image = np.random.default_rng(0).integers(0, 256, n, dtype=np.uint8)
    made: list[Array] = []

    def plain(*, check: bool = False) -> Array | None:
        values = image.astype(np.float64)
        result = values / 255.0
        return result if check else None

    def by_hand(*, check: bool = False) -> Array | None:
        if not made:
            made.extend((np.empty(n), np.empty(n)))
        scratch, out = made
        np.copyto(scratch, image)
        np.divide(scratch, 255.0, out=out)
        return out if check else None

    return Work(f"astype(float64), then / 255.0, n = {n:,}", plain, by_hand)


def frames(height: int = 1080, width: int = 1920) -> Work:
    """Take a camera frame to float, to weighted grey, blur it, compare with the background, threshold and count."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (height, width, 3), dtype=np.uint8)
    # Something bright moves over the background, so that the counts differ from frame to frame.
    camera = []
    for i in range(4):
        frame = base.copy()
        frame[100 : 100 + height // 4, 50 + 40 * i : 50 + 40 * i + width // 8] = 250
        camera.append(frame)
    still = base.astype(np.float32)
    background = (
        still[..., 0] * np.float32(0.114) + still[..., 1] * np.float32(0.587) + still[..., 2] * np.float32(0.299)
    )
    background = background[1:-1]
    blue, green, red = np.float32(0.114), np.float32(0.587), np.float32(0.299)
    third, threshold = np.float32(1 / 3), np.float32(40.0)
    count = 0

    def next_frame() -> Array:
        nonlocal count
        count += 1
        return camera[count % len(camera)]

    def plain(*, check: bool = False) -> Array | None:
        image = (camera[0] if check else next_frame()).astype(np.float32)
        grey = image[..., 0] * blue + image[..., 1] * green + image[..., 2] * red
        blurred = (grey[:-2] + grey[1:-1] + grey[2:]) * third
        difference = np.abs(blurred - background)
        moving = difference > threshold
        changed = np.count_nonzero(moving)
        return np.append(difference, changed) if check else None

    image_ = np.empty((height, width, 3), np.float32)
    grey_, part_ = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    blurred_ = np.empty((height - 2, width), np.float32)
    moving_ = np.empty((height - 2, width), np.bool_)

    def by_hand(*, check: bool = False) -> Array | None:
        np.copyto(image_, camera[0] if check else next_frame())
        np.multiply(image_[..., 0], blue, out=grey_)
        np.multiply(image_[..., 1], green, out=part_)
        np.add(grey_, part_, out=grey_)
        np.multiply(image_[..., 2], red, out=part_)
        np.add(grey_, part_, out=grey_)
        np.add(grey_[:-2], grey_[1:-1], out=blurred_)
        np.add(blurred_, grey_[2:], out=blurred_)
        np.multiply(blurred_, third, out=blurred_)
        np.subtract(blurred_, background, out=blurred_)
        np.abs(blurred_, out=blurred_)
        np.greater(blurred_, threshold, out=moving_)
        changed = np.count_nonzero(moving_)
        return np.append(blurred_, changed) if check else None

    return Work(f"{height}p frame: float, grey, blur, difference, count", plain, by_hand)
