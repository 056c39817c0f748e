"""Aligned arrays, helper threads, forks, the interpreter's end, forced kernels."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from copy_arrays import DTYPES, KERNELS, SUPPORTED, fill
from hypothesis import given, settings
from hypothesis import strategies as st
from waits import exit_code, joined

import rtpool
from rtpool import _core
from rtpool._copy import copies


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
    """Sleeps between its turns: without a GIL an `Event.wait` begins with 40 yields, each a turn of whoever is busy."""
    src = np.ones(128 << 20, np.uint8)
    dst = np.zeros_like(src)
    done = threading.Event()
    enough = threading.Event()

    def work() -> None:
        for _ in range(500):
            rtpool.copyto(dst, src, threads=1)
            if enough.is_set():
                break
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)  # nobody is made to let go of the GIL
    try:
        thread = threading.Thread(target=work)
        thread.start()
        count = 0
        while not done.is_set():
            count += 1
            if count == 10:
                enough.set()
            time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)
    joined(thread)
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
    assert exit_code(child) == 0


def test_the_interpreter_ends_with_helpers_at_rest_and_at_work() -> None:
    program = """
import threading
import numpy as np, rtpool
src = np.ones(64 << 20, np.uint8)
dst = np.zeros_like(src)
rtpool.copyto(dst, src, threads=2)
at_work = threading.Event()
def loop():
    while True:
        rtpool.copyto(dst, src, threads=2)
        at_work.set()
threading.Thread(target=loop, daemon=True).start()
at_work.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_kernels_are_forced_by_name() -> None:
    assert "portable" in SUPPORTED
    best = _core.copy_settings()[0]
    # NEON's is there to be asked for: no processor has been measured with it.
    assert best == next(name for name in SUPPORTED if name != "neon")
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
    for name in copies.__all__:
        for example in finder.find(getattr(copies, name), name, globs={"np": np, "rtpool": rtpool}):
            runner.run(example)
    assert runner.summarize(verbose=False) == (0, runner.tries) and runner.tries >= 10
