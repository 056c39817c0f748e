"""Arrays of every layout to copy between, guards around them, and the kernels of this machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rtpool import _core

GUARD = 0xA5
MODES = ("auto", "cached", "stream")
KERNELS = [name for name, _ in _core.copy_kernels()]
SUPPORTED = [name for name, supported in _core.copy_kernels() if supported]

DTYPES = [
    np.dtype(text)
    for text in (
        "?",
        "u1",
        "i2",
        ">i2",
        "f2",
        "u4",
        "f4",
        "i8",
        ">f8",
        "c8",
        "c16",
        "g",
        "M8[ms]",
        "m8[D]",
        "S3",
        "U2",
        "V5",
    )
] + [
    np.dtype([("a", "u1"), ("b", "u1", (2,)), ("c", "u1")]),
    np.dtype([("x", "<f4"), ("y", [("z", "<i2"), ("w", "V2")])]),
    np.dtype({"names": ["a", "b"], "formats": ["u1", "<u4"], "offsets": [0, 4], "itemsize": 12}),
    np.dtype({"names": ["b", "a"], "formats": ["u1", "u1"], "offsets": [1, 0], "itemsize": 2}),
]


@st.composite
def view_recipes(draw: st.DrawFn, shape: tuple[int, ...]) -> list[tuple[int, int, int, bool]]:
    """For each axis: items before, items after, step, reversed. None of it changes the shape of the view."""
    plain = draw(st.booleans())
    recipe = []
    for _ in shape:
        if plain and draw(st.booleans()):
            recipe.append((0, 0, 1, False))
        else:
            recipe.append(
                (
                    draw(st.integers(0, 2)),
                    draw(st.integers(0, 2)),
                    draw(st.sampled_from((1, 1, 1, 2))),
                    draw(st.booleans()),
                )
            )
    return recipe


def make_view(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    recipe: list[tuple[int, int, int, bool]],
    order: tuple[int, ...],
    offset: int,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A byte buffer full of guards, and an array of `shape` inside it, `offset` bytes from its start."""
    whole = tuple(before + n * step + after for n, (before, after, step, _) in zip(shape, recipe, strict=True))
    nbytes = int(np.prod(whole, dtype=np.int64)) * dtype.itemsize
    buffer = np.full(offset + nbytes + 64, GUARD, np.uint8)
    laid = np.ndarray(tuple(whole[axis] for axis in order), dtype, buffer, offset)
    array = laid.transpose(np.argsort(order)) if order else laid
    kept = tuple(slice(before, before + n * step, step) for n, (before, _, step, _) in zip(shape, recipe, strict=True))
    flips = tuple(slice(None, None, -1 if backwards else 1) for *_, backwards in recipe)
    return buffer, array[kept][flips] if shape else array


def fill(array: np.ndarray[Any, Any], seed: int) -> None:
    random = np.random.default_rng(seed)
    raw = random.integers(0, 2 if array.dtype == bool else 256, array.size * array.dtype.itemsize, dtype=np.uint8)
    np.copyto(
        array,
        raw.view(array.dtype).reshape(array.shape) if array.size else raw[:0].view(array.dtype).reshape(array.shape),
    )


def clear_padding(*arrays: np.ndarray[Any, Any]) -> None:
    """Where NumPy converts to an extended double at an odd address, its 6 padding bytes come from an unset buffer."""
    extended = np.dtype("g")
    for array in arrays:
        if array.dtype == extended and extended.itemsize == 16 and np.finfo(extended).nmant == 63:
            array.view([("value", "V10"), ("padding", "V6")])["padding"] = b""


shapes = st.lists(st.integers(0, 7), max_size=4).flatmap(
    lambda head: st.integers(1, 90).map(lambda last: (*head, last) if len(head) < 4 else tuple(head))
)
