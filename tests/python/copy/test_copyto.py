"""`copyto` writes bit for bit what NumPy's does, whatever the types, shapes, strides, kernels, modes and threads."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from copy_arrays import DTYPES, GUARD, MODES, SUPPORTED, clear_padding, fill, make_view, shapes, view_recipes
from hypothesis import given, settings
from hypothesis import strategies as st

import rtpool
from rtpool import _core


@pytest.mark.slow
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


@pytest.mark.parametrize("casting", ["no", "equiv", "safe", "same_kind", "unsafe", "odd", 3])
@pytest.mark.parametrize("where", [True, False, [True, False, True, False], "x"])
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4"])
def test_casting_and_where_are_numpys(casting: Any, where: Any, dtype: str) -> None:
    source = np.arange(8, dtype=dtype).reshape(2, 4) + 1
    expected, target = np.zeros((2, 4)), np.zeros((2, 4))
    for rules in ((casting, where), (casting,)):
        raised: list[BaseException | None] = []
        for copy, array in ((np.copyto, expected), (rtpool.copyto, target)):
            try:
                copy(array, source, *rules)
                raised.append(None)
            except Exception as error:
                raised.append(error)
        assert type(raised[0]) is type(raised[1]) and str(raised[0]) == str(raised[1])
        assert (target == expected).all()
    target[...] = 0
    rtpool.copyto(src=source, dst=target, where=[[True], [False]], casting="unsafe", mode="stream")
    assert (target[0] == source[0]).all() and not target[1].any()


def test_copyto_refuses_other_arguments() -> None:
    copyto: Any = rtpool.copyto
    a = np.zeros(3)
    for arguments, options in [
        ((), {}),
        ((a,), {}),
        ((a, a, a, a, a), {}),
        ((a, a), {"were": True}),
        ((a, a), {"dst": a}),
    ]:
        with pytest.raises(TypeError):
            copyto(*arguments, **options)
