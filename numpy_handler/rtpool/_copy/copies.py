"""Copies for large arrays: joining them, and canvases that are fast to join into. See `copyto` for how and when."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._core import copyto, join_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, SupportsIndex

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .._core import CopyMode

    Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]

__all__ = ["concatenate", "copyto", "empty_aligned", "stack"]

_PAGE = 4096
_ROW_ALIGNMENTS = (16, 32, 64, 128, 256, 512, 1024, 2048)
# As the checkers see them, NumPy's own take fewer kinds of arguments than they do.
_concatenate: Any = np.concatenate
_stack: Any = np.stack
_CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")


def concatenate(
    arrays: Sequence[ArrayLike],
    axis: SupportsIndex | None = 0,
    out: NDArray[Any] | None = None,
    *,
    dtype: DTypeLike | None = None,
    casting: Casting = "same_kind",
    mode: CopyMode = "auto",
    threads: int | None = None,
) -> NDArray[Any]:
    """Join arrays along an axis they have, past the processor's caches where that is faster.

    The same as `numpy.concatenate` in every result and error. A list or tuple of arrays of one type that consist of
    contiguous rows is copied by rtpool, in one piece of work that threads can share; everything else by NumPy.

    Parameters
    ----------
    arrays : sequence of array_like
        Arrays of the same shape, except along `axis`.
    axis : int or None, default 0
        Where to join. None joins the flattened arrays.
    out : numpy.ndarray, optional
        Where to put the result; it must have the right shape. A canvas kept from call to call saves its page faults.
    dtype, casting
        As in `numpy.concatenate`.
    mode : {'auto', 'cached', 'stream'}
        As in `copyto`; what counts is the size of the whole result.
    threads : int, optional
        As in `copyto`.

    Returns
    -------
    numpy.ndarray
        `out`, or a new array.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> tiles = [np.full((2, 3), i, np.uint8) for i in range(3)]
    >>> canvas = rtpool.empty_aligned((2, 9), np.uint8)
    >>> rtpool.concatenate(tiles, axis=1, out=canvas) is canvas
    True
    >>> canvas
    array([[0, 0, 0, 1, 1, 1, 2, 2, 2],
           [0, 0, 0, 1, 1, 1, 2, 2, 2]], dtype=uint8)
    """
    plain = dtype is None and casting in _CASTINGS
    joined = join_arrays(arrays if plain else None, axis, out, False, mode, threads)
    if joined is not None:
        return joined
    return cast("NDArray[Any]", _concatenate(arrays, axis, out, dtype=dtype, casting=casting))


def stack(
    arrays: Sequence[ArrayLike],
    axis: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    *,
    dtype: DTypeLike | None = None,
    casting: Casting = "same_kind",
    mode: CopyMode = "auto",
    threads: int | None = None,
) -> NDArray[Any]:
    """Join arrays along a new axis, past the processor's caches where that is faster.

    The same as `numpy.stack` in every result and error; see `concatenate` for what rtpool copies and what NumPy does.

    Parameters
    ----------
    arrays : sequence of array_like
        Arrays of the same shape.
    axis : int, default 0
        Where the new axis is in the result.
    out : numpy.ndarray, optional
        Where to put the result; it must have the right shape.
    dtype, casting
        As in `numpy.stack` (NumPy 1.24 or newer).
    mode : {'auto', 'cached', 'stream'}
        As in `copyto`; what counts is the size of the whole result.
    threads : int, optional
        As in `copyto`.

    Returns
    -------
    numpy.ndarray
        `out`, or a new array with one dimension more than `arrays`.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> frames = [np.zeros((480, 640), np.uint8) for _ in range(5)]
    >>> rtpool.stack(frames).shape
    (5, 480, 640)
    """
    plain = dtype is None and casting in _CASTINGS
    joined = join_arrays(arrays if plain else None, axis, out, True, mode, threads)
    if joined is not None:
        return joined
    # Only what was given: NumPy's stack knows neither before 1.24.
    options = ({"dtype": dtype} if dtype is not None else {}) | ({"casting": casting} if casting != "same_kind" else {})
    return cast("NDArray[Any]", _stack(arrays, axis, out, **options))


def empty_aligned(
    shape: SupportsIndex | Sequence[SupportsIndex], dtype: DTypeLike, *, row_align: int = 64
) -> NDArray[Any]:
    """Make an array whose rows and slots start on cache lines and do not all fall on the same cache sets.

    Every part `a[i]`, `a[i, j]`, ... of at least `row_align` bytes starts at a multiple of `row_align`, and the
    distance from one such part to the next is no multiple of 4096. So rows are written in whole lines, whatever their
    width, and the same column of neighbouring rows does not compete for the same few places in the cache. Trailing
    axes that make up fewer than `row_align` bytes (the channels of a pixel) stay together without gaps. A larger
    `row_align` pads fewer axes: a part is only as fine as it is large.

    The memory comes from the active handler, like that of `numpy.empty`, and is as uninitialised.

    Parameters
    ----------
    shape : int or sequence of int
        Shape of the array.
    dtype : data-type
        Type of its items; no objects.
    row_align : int, default 64
        Bytes, a power of two from 16 to 2048. 64 is one cache line.

    Returns
    -------
    numpy.ndarray
        A view in C order; contiguous only if nothing had to be padded.

    Raises
    ------
    TypeError
        If the type holds Python objects.
    ValueError
        If `row_align` is none of the above, or the shape is negative.

    Examples
    --------
    >>> import rtpool
    >>> canvas = rtpool.empty_aligned((1024, 102400, 4), "uint8")
    >>> canvas.strides  # a row has 409600 bytes, 100 times 4096: one line more
    (409664, 4, 1)
    """
    if row_align not in _ROW_ALIGNMENTS:
        raise ValueError(f"row_align must be a power of two from 16 to 2048, not {row_align!r}")
    item = np.dtype(dtype)
    if item.hasobject:
        raise TypeError(f"empty_aligned has no memory for Python objects, and {item!r} holds some")
    sizes = _shape_of(shape)
    if item.subdtype is not None:
        item, inner = item.subdtype
        sizes += inner
    strides = [0] * len(sizes)
    extent = item.itemsize
    for i in range(len(sizes) - 1, -1, -1):
        if extent >= row_align:
            extent = -(-extent // row_align) * row_align
            if extent % _PAGE == 0:
                extent += row_align
        strides[i] = extent
        extent *= max(sizes[i], 1)
    if 0 in sizes:
        return np.empty(tuple(sizes), item)
    memory = np.empty(extent + row_align, np.uint8)
    start = -memory.ctypes.data % row_align
    return np.ndarray(tuple(sizes), item, memory, start, tuple(strides))


def _shape_of(shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    sizes = tuple(map(index, shape)) if isinstance(shape, Iterable) else (index(shape),)
    if any(size < 0 for size in sizes):
        raise ValueError(f"negative dimensions are not allowed: {sizes}")
    return sizes
