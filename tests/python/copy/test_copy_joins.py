"""`concatenate` and `stack` are NumPy's, whatever is joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from copy_arrays import DTYPES, MODES, fill, make_view, view_recipes
from hypothesis import given, settings
from hypothesis import strategies as st

import rtpool


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered in cast:RuntimeWarning")
@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_joining_gives_what_numpy_gives(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(0, 4), "dimensions")
    stacked = data.draw(st.booleans(), "stacked")
    base = [data.draw(st.integers(0, 6)) for _ in range(dimensions)]
    if base:
        base[-1] = data.draw(st.integers(1, 50))
    axis = data.draw(st.integers(-dimensions - 2, dimensions + 1), "axis")
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    arrays = []
    for k in range(data.draw(st.integers(1, 5), "count")):
        shape = list(base)
        if not stacked and dimensions and -dimensions <= axis < dimensions:
            shape[axis] = data.draw(st.integers(0, 9))
        if data.draw(st.integers(0, 40)) == 0:
            shape = shape[:-1]
        order = (
            tuple(data.draw(st.permutations(range(len(shape)))))
            if data.draw(st.integers(0, 3)) == 0
            else tuple(range(len(shape)))
        )
        _, array = make_view(
            dtype, tuple(shape), data.draw(view_recipes(tuple(shape))), order, data.draw(st.integers(0, 64))
        )
        fill(array, k)
        arrays.append(array if dtype.kind not in "iu" or data.draw(st.integers(0, 30)) else array.astype("f8"))
    mode = data.draw(st.sampled_from(MODES), "mode")
    reference: Any = np.stack if stacked else np.concatenate
    ours: Any = rtpool.stack if stacked else rtpool.concatenate
    container: Any = data.draw(st.sampled_from((list, tuple)))
    try:
        expected = reference(arrays, axis)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)) as caught:
            ours(container(arrays), axis, mode=mode)
        assert str(caught.value) == str(error)
        return
    result = ours(container(arrays), axis, mode=mode)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if dtype.names and dtype.itemsize > sum(dtype[name].itemsize for name in dtype.names):
        assert result.tolist() == expected.tolist()  # nobody writes the gaps
    else:
        assert result.tobytes() == expected.tobytes()
    if expected.size > 1:
        assert result.strides == expected.strides
    assert result.flags.owndata and result.flags.writeable
    # Into an array of ours: its neighbours stay as they were.
    recipe = data.draw(view_recipes(expected.shape), "out")
    order = tuple(range(expected.ndim))
    out_dtype = dtype if data.draw(st.integers(0, 5)) else np.dtype("f4")
    expected_buffer, expected_out = make_view(out_dtype, expected.shape, recipe, order, 0)
    buffer, out = make_view(out_dtype, expected.shape, recipe, order, 0)
    try:
        reference(arrays, axis, expected_out)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)) as caught:
            ours(container(arrays), axis, out, mode=mode)
        assert str(caught.value) == str(error)
        return
    assert ours(container(arrays), axis, out, mode=mode) is out
    assert bytes(buffer) == bytes(expected_buffer)


A = np.arange(6.0).reshape(2, 3)


@pytest.mark.filterwarnings("ignore:arrays to stack must be passed:FutureWarning")  # NumPy before 1.24
@pytest.mark.parametrize("name", ["concatenate", "stack"])
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (([],), {}),
        ((A,), {}),
        ((np.float64(1),), {}),
        (([A, A.astype("f4")],), {}),
        (([A, [[1, 2, 3], [4, 5, 6]]],), {}),
        (([A, A], 5), {}),
        (([A, A], "0"), {}),
        (([A, A], None), {}),
        (([A, A], np.int64(1)), {}),
        (([A, A[:1]],), {}),
        (([A, A[0]],), {}),
        ((lambda: (a for a in (A, A)),), {}),  # makes a generator: each call needs one of its own
        (([A, A], 0, np.empty((9, 9))), {}),
        (([A, A], 0, [1]), {}),
        (([A, A],), {"casting": "never"}),
        (([A, A],), {"dtype": "i4"}),
        (([A, A],), {"dtype": "i4", "casting": "unsafe"}),
        (([A, A], 0, np.empty((4, 3))), {"dtype": "f8"}),
        (([A.view(np.ma.MaskedArray), A],), {}),
        (([A.T, A.T],), {}),
        (([A, A, A.astype(">f8")],), {}),
    ],
)
def test_joins_that_are_not_ours_are_numpys(name: str, arguments: Any, options: Any) -> None:
    def attempt(module: Any) -> Any:
        try:
            first = arguments[0]() if callable(arguments[0]) else arguments[0]
            return getattr(module, name)(first, *arguments[1:], **options)
        except (TypeError, ValueError) as error:
            return error

    expected = attempt(np)
    result = attempt(rtpool)
    assert type(result) is type(expected)
    if isinstance(expected, Exception):
        assert str(result) == str(expected)
    else:
        assert result.dtype == expected.dtype and np.array_equal(result, expected)
        assert result.strides == expected.strides


def test_joining_into_one_of_the_arrays_is_what_numpy_makes_of_it() -> None:
    memory = np.arange(64.0)
    expected = memory.copy()
    np.concatenate([expected[8:16], expected[:8]], out=expected[4:20])
    rtpool.concatenate([memory[8:16], memory[:8]], out=memory[4:20], mode="stream")
    assert np.array_equal(memory, expected)


def test_a_read_only_out_is_refused_like_numpy_does() -> None:
    out = np.zeros((4, 3))
    out.flags.writeable = False
    with pytest.raises(ValueError) as expected:
        np.concatenate([A, A], out=out)
    with pytest.raises(ValueError) as caught:
        rtpool.concatenate([A, A], out=out)
    assert str(caught.value) == str(expected.value)


class Answering:
    """Takes NumPy's functions over by its own answer."""

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function.__name__


def test_other_kinds_of_arrays_are_asked_first() -> None:
    concatenate: Any = rtpool.concatenate
    stack: Any = rtpool.stack
    assert concatenate([A, Answering()]) == "concatenate"
    assert stack([A, Answering()]) == "stack"
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    expected = masked.copy()
    np.copyto(expected, np.array([5.0, 6.0]))
    rtpool.copyto(masked, np.array([5.0, 6.0]))
    assert masked.data.tolist() == expected.data.tolist() and masked.mask.tolist() == expected.mask.tolist()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_large_canvas_of_images(kernel: str, axis: int, threads: int | None) -> None:
    random = np.random.default_rng(2)
    images = [random.integers(0, 256, (256, 200 + 13 * i, 4), dtype=np.uint8) for i in range(12)]
    if axis == 0:
        images = [image[:, :200] for image in images]
    expected = np.concatenate(images, axis)
    canvas = rtpool.empty_aligned(expected.shape, np.uint8)
    assert rtpool.concatenate(images, axis, canvas, mode="stream", threads=threads) is canvas
    assert np.array_equal(canvas, expected)
    squares = [np.ascontiguousarray(image[:, :200]) for image in images]
    assert np.array_equal(rtpool.stack(squares, mode="stream", threads=threads), np.stack(squares))
