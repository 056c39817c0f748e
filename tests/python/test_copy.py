"""Copies are bit for bit NumPy's, whatever the types, shapes, strides, kernels, modes and threads."""

from __future__ import annotations

import doctest
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtpool
from rtpool import _copy, _core

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


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in SUPPORTED:
        pytest.skip(f"this processor cannot run the {request.param} kernel")
    _core.force_copy_kernel(request.param)
    yield request.param
    _core.force_copy_kernel(None)


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


@given(data=st.data())
@settings(max_examples=600, deadline=None)
def test_copyto_writes_what_numpy_writes(data: st.DataObject) -> None:
    shape = data.draw(shapes, "shape")
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    src_dtype = data.draw(st.sampled_from([dtype, dtype, dtype, dtype, np.dtype("u1")]), "source dtype")
    src_shape = tuple(1 if data.draw(st.integers(0, 7)) == 0 else n for n in shape)
    src_shape = src_shape[data.draw(st.integers(0, len(shape))) if data.draw(st.integers(0, 4)) == 0 else 0 :]
    order = (
        tuple(data.draw(st.permutations(range(len(shape))), "order"))
        if data.draw(st.booleans())
        else tuple(range(len(shape)))
    )
    recipe = data.draw(view_recipes(shape), "destination")
    offset = data.draw(st.integers(0, 64), "offset")
    expected_buffer, expected = make_view(dtype, shape, recipe, order, offset)
    buffer, dst = make_view(dtype, shape, recipe, order, offset)
    src_recipe = data.draw(view_recipes(src_shape), "source")
    _, src = make_view(src_dtype, src_shape, src_recipe, tuple(range(len(src_shape))), data.draw(st.integers(0, 64)))
    fill(src, len(shape))
    mode = data.draw(st.sampled_from(MODES), "mode")
    threads = data.draw(st.sampled_from((None, 1, 3)), "threads")
    try:
        np.copyto(expected, src)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)) as caught:
            rtpool.copyto(dst, src, mode=mode, threads=threads)
        assert str(caught.value) == str(error)
    else:
        assert rtpool.copyto(dst, src, mode=mode, threads=threads) is None
    clear_padding(dst, expected)
    assert bytes(buffer) == bytes(expected_buffer)


@given(
    n=st.integers(0, 3000),
    rows=st.integers(1, 5),
    dst_offset=st.integers(0, 70),
    src_offset=st.integers(0, 70),
    gap=st.integers(0, 70),
    kernel=st.sampled_from(SUPPORTED),
    stream=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_every_kernel_copies_rows_at_any_address(
    n: int, rows: int, dst_offset: int, src_offset: int, gap: int, kernel: str, stream: bool
) -> None:
    memory = np.full(dst_offset + rows * (n + gap) + 128, GUARD, np.uint8)
    expected = memory.copy()
    source = (
        np.random.default_rng(n).integers(0, 256, src_offset + rows * n, dtype=np.uint8)[src_offset:].reshape(rows, n)
    )
    for buffer, copy in ((expected, np.copyto), (memory, rtpool.copyto)):
        dst = buffer[dst_offset : dst_offset + rows * (n + gap)].reshape(rows, n + gap)[:, :n]
        if copy is np.copyto:
            copy(dst, source)
        else:
            _core.force_copy_kernel(kernel)
            try:
                copy(dst, source, mode="stream" if stream else "cached")
            finally:
                _core.force_copy_kernel(None)
    assert bytes(memory) == bytes(expected)


@given(
    n=st.integers(1, 2000),
    shift=st.integers(-600, 600),
    step=st.sampled_from((1, -1)),
    stream=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_overlapping_arrays_are_right(n: int, shift: int, step: int, stream: bool) -> None:
    start = 700
    memory = np.random.default_rng(n).integers(0, 256, n + 1400, dtype=np.uint8)
    expected = memory.copy()
    for buffer, copy in ((expected, np.copyto), (memory, rtpool.copyto)):
        dst = buffer[start : start + n]
        src = buffer[start + shift : start + shift + n][::step]
        copy(dst, src) if copy is np.copyto else copy(dst, src, mode="stream" if stream else "cached")
    assert bytes(memory) == bytes(expected)


def test_parts_of_one_canvas_may_be_copied_to_others() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (64, 4000), dtype=np.uint8)
    expected = canvas.copy()
    expected[:, 2000:] = expected[:, :2000]
    rtpool.copyto(canvas[:, 2000:], canvas[:, :2000], mode="stream")
    assert np.array_equal(canvas, expected)
    expected[1:] = expected[:-1]
    rtpool.copyto(canvas[1:], canvas[:-1], mode="stream")
    assert np.array_equal(canvas, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_large_copies_with_any_number_of_threads(kernel: str, mode: Any, threads: int | None) -> None:
    random = np.random.default_rng(1)
    source = random.integers(0, 256, (300, 65_003), dtype=np.uint8)
    memory = np.full((302, 65_100), GUARD, np.uint8)
    rtpool.copyto(memory[1:-1, 37 : 37 + 65_003], source, mode=mode, threads=threads)
    assert np.array_equal(memory[1:-1, 37 : 37 + 65_003], source)
    memory[1:-1, 37 : 37 + 65_003] = GUARD
    assert (memory == GUARD).all()


def test_what_is_larger_than_the_cache_is_right_in_auto() -> None:
    nbytes = max(_core.copy_settings()[1], 1 << 20) + 12_345
    source = np.arange(nbytes // 8 + 1, dtype=np.uint64).view(np.uint8)[3 : 3 + nbytes]
    memory = np.full(nbytes + 128, GUARD, np.uint8)
    rtpool.copyto(memory[64:-64], source)
    assert np.array_equal(memory[64:-64], source)
    assert (memory[:64] == GUARD).all() and (memory[-64:] == GUARD).all()


@pytest.mark.parametrize(
    ("dst", "src"),
    [
        ([1, 2], [3, 4]),
        (None, np.zeros(3)),
        (np.zeros(3), np.zeros(4)),
        (np.zeros((2, 3)), np.zeros((3, 3))),
        (np.zeros(3), np.zeros((2, 3))),
        (np.zeros(3, np.int32), np.zeros(3)),
        (np.zeros(3), np.zeros(3, complex)),
        (np.zeros(3), "text"),
        (np.broadcast_to(np.zeros(1), 3), np.zeros(3)),
        (np.zeros(0), np.zeros(2)),
    ],
)
def test_errors_are_numpys(dst: Any, src: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        np.copyto(dst, src)
    with pytest.raises(expected.type) as caught:
        rtpool.copyto(dst, src)
    assert str(caught.value) == str(expected.value)


def test_other_sources_than_arrays_are_numpys() -> None:
    dst = np.zeros((2, 3))
    rtpool.copyto(dst, 7)
    assert (dst == 7).all()
    rtpool.copyto(dst, [1, 2, 3])
    assert (dst == [1, 2, 3]).all()
    rtpool.copyto(src=np.ones(3, np.int8), dst=dst)
    assert (dst == 1).all()


def test_writing_to_a_broadcast_result_warns_as_numpy_does() -> None:
    def arrays() -> Any:
        return np.broadcast_arrays(np.zeros((2, 40)), np.zeros((2, 1)))[0]

    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        np.copyto(arrays(), np.ones((2, 40)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rtpool.copyto(arrays(), np.ones((2, 40)))
    assert [w.category for w in caught] == [w.category for w in expected]


def test_objects_keep_their_counts() -> None:
    marker = object()
    before = sys.getrefcount(marker)
    src = np.array([marker] * 50, object)
    dst = np.empty(50, object)
    rtpool.copyto(dst, src, mode="stream")
    assert sys.getrefcount(marker) == before + 100
    joined = rtpool.concatenate([src, dst])
    assert sys.getrefcount(marker) == before + 200
    del src, dst, joined
    gc.collect()
    assert sys.getrefcount(marker) == before


def test_fields_that_are_not_selected_stay() -> None:
    records = np.zeros(100, [("a", "u1"), ("b", "u1"), ("c", "u1"), ("d", "u1")])
    records["b"] = 9
    source = np.ones(100, records.dtype)
    rtpool.copyto(records[["a", "c", "d"]], source[["a", "c", "d"]])
    assert (records["b"] == 9).all() and (records["c"] == 1).all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"mode": "fast"}, ValueError, "mode must be 'auto', 'cached' or 'stream', not 'fast'"),
        ({"mode": 1}, TypeError, "mode must be 'auto', 'cached' or 'stream', not 1"),
        ({"threads": 0}, ValueError, "threads must be None or a number from 1 on, not 0"),
        ({"threads": -2}, ValueError, "threads must be None or a number from 1 on, not -2"),
        ({"threads": "2"}, TypeError, "threads must be None or a number from 1 on, not '2'"),
    ],
)
def test_options_are_checked_also_where_numpy_copies(options: Any, error: type[Exception], text: str) -> None:
    a = np.zeros(3)
    calls: list[Any] = [
        lambda: rtpool.copyto(a, 1, **options),
        lambda: rtpool.concatenate([a, [1]], **options),
        lambda: rtpool.concatenate([a, a], dtype="f4", **options),
        lambda: rtpool.stack([a, a], **options),
    ]
    for call in calls:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == text


def test_copyto_refuses_other_arguments() -> None:
    copyto: Any = rtpool.copyto
    a = np.zeros(3)
    for arguments, options in [((), {}), ((a,), {}), ((a, a, a), {}), ((a, a), {"where": True}), ((a, a), {"dst": a})]:
        with pytest.raises(TypeError):
            copyto(*arguments, **options)


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


@given(
    shape=st.lists(st.integers(0, 40), max_size=4).map(tuple),
    dtype=st.sampled_from([d for d in DTYPES if not d.hasobject]),
    row_align=st.sampled_from((16, 32, 64, 128, 256, 512, 1024, 2048)),
)
@settings(max_examples=300, deadline=None)
def test_aligned_arrays_keep_their_promises(shape: tuple[int, ...], dtype: np.dtype[Any], row_align: int) -> None:
    array = rtpool.empty_aligned(shape, dtype, row_align=row_align)
    assert array.shape == shape and array.dtype == dtype and array.flags.writeable and array.flags.aligned
    if array.size == 0:
        return
    assert array.ctypes.data % row_align == 0
    fill(array, 3)
    for axis in range(array.ndim):
        part = array[(*(0,) * (axis + 1), ...)]
        if part.size * part.itemsize >= row_align:
            assert array.strides[axis] % row_align == 0
            assert array.strides[axis] % 4096 != 0
        else:
            assert part.flags.c_contiguous and array.strides[axis] == part.size * part.itemsize


def test_aligned_arrays_refuse_what_they_cannot_do() -> None:
    for row_align in (0, 8, 48, 4096, -64, None, "64"):
        with pytest.raises(ValueError, match="power of two from 16 to 2048"):
            rtpool.empty_aligned((4, 4), np.uint8, row_align=row_align)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Python objects"):
        rtpool.empty_aligned(4, object)
    with pytest.raises(ValueError, match="negative"):
        rtpool.empty_aligned((4, -1), np.uint8)
    with pytest.raises(TypeError):
        rtpool.empty_aligned((4, 2.5), np.uint8)  # type: ignore[arg-type]


def test_other_threads_run_during_a_large_copy() -> None:
    src = np.ones(128 << 20, np.uint8)
    dst = np.zeros_like(src)
    done = threading.Event()

    def work() -> None:
        for _ in range(5):
            rtpool.copyto(dst, src, threads=1)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)  # nobody is made to let go of the GIL
    try:
        thread = threading.Thread(target=work)
        thread.start()
        count = 0
        while not done.wait(0.001):
            count += 1
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert count >= 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_of_a_fork_copy_with_threads_of_their_own() -> None:
    src = np.random.default_rng(3).integers(0, 256, 16 << 20, dtype=np.uint8)
    dst = np.zeros_like(src)
    rtpool.copyto(dst, src, threads=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: that is what is tested
        child = os.fork()
    if child == 0:
        dst[:] = 0
        rtpool.copyto(dst, src, threads=3)
        os._exit(0 if np.array_equal(dst, src) and _core.copy_settings()[2] == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_interpreter_ends_with_helpers_at_rest_and_at_work() -> None:
    program = """
import threading, time
import numpy as np, rtpool
src = np.ones(64 << 20, np.uint8)
dst = np.zeros_like(src)
rtpool.copyto(dst, src, threads=2)
def loop():
    while True:
        rtpool.copyto(dst, src, threads=2)
threading.Thread(target=loop, daemon=True).start()
time.sleep(0.05)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_kernels_are_forced_by_name() -> None:
    assert "portable" in SUPPORTED
    best = _core.copy_settings()[0]
    assert best == SUPPORTED[0]
    with pytest.raises(ValueError, match="no copy kernel is called 'abacus'"):
        _core.force_copy_kernel("abacus")
    for name in KERNELS:
        if name in SUPPORTED:
            _core.force_copy_kernel(name)
            assert _core.copy_settings()[0] == name
        else:
            with pytest.raises(ValueError, match="cannot run the copy kernel"):
                _core.force_copy_kernel(name)
    _core.force_copy_kernel(None)
    assert _core.copy_settings()[0] == best


def test_the_examples_in_the_documentation_run() -> None:
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    for name in _copy.__all__:
        for example in finder.find(getattr(_copy, name), name, globs={"np": np, "rtpool": rtpool}):
            runner.run(example)
    assert runner.summarize(verbose=False) == (0, runner.tries) and runner.tries >= 10
