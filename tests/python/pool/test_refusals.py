"""A `MemoryError` says which pool refused, what it holds, and what to do."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from waits import joined

import rtpool
from rtpool import _core

MIB = 1 << 20


def told(error: BaseException) -> str:
    """What a traceback shows of the error."""
    return "".join(traceback.format_exception(error))


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(MemoryError) as caught:
        make()
    return told(caught.value)


def unexplained(make: Callable[[], Any]) -> bool:
    with pytest.raises(MemoryError) as caught:
        make()
    return not getattr(caught.value, "__notes__", None) and caught.value.__cause__ is None


@pytest.fixture
def full() -> Any:
    pool = rtpool.Pool(limit="32 MiB", name="camera", when_full="raise")
    with rtpool.handler(pool):
        kept = np.ones(10 * MIB, np.uint8)
        yield pool
    del kept


@pytest.mark.parametrize(
    "make", [lambda: np.empty(24 * MIB, np.uint8), lambda: np.zeros((3, MIB)), lambda: np.ones((24, MIB), np.int8)]
)
def test_a_full_pool_says_what_it_holds(full: rtpool.Pool, make: Callable[[], Any]) -> None:
    text = refused(make)
    for part in ("'camera' has no 24 MiB", "of at most 32 MiB", "10 MiB of that in 1 block in use", "raise limit="):
        assert part in text, text
    assert f"largest free piece is {full.stats().largest_free_bytes // MIB} MiB" in text
    assert text.count("camera") == 1


def test_what_never_fits_and_what_is_frozen(full: rtpool.Pool) -> None:
    assert "More than its limit never fits" in refused(lambda: np.empty(40 * MIB, np.uint8))
    full.freeze(on_miss="raise")
    try:
        assert "It is frozen" in refused(lambda: np.empty(20 * MIB, np.uint8))
    finally:
        full.unfreeze()


def test_errors_without_a_word_are_explained_where_the_handler_ends(full: rtpool.Pool) -> None:
    def resize() -> None:
        with rtpool.handler(full):
            np.ones(3).resize(20 * MIB, refcheck=False)

    assert "'camera' has no 160 MiB" in refused(resize)


def test_shared_pools_say_it_too() -> None:
    with rtpool.SharedPool.create("4 MiB") as pool, rtpool.handler(pool):
        assert "of at most 4 MiB" in refused(lambda: np.ones(MIB))


def test_errors_of_others_stay_what_they_are(full: rtpool.Pool) -> None:
    refused(lambda: np.empty(30 * MIB, np.uint8))
    with rtpool.handler(rtpool.Pool()):
        rtpool.set_handler(None)
        assert unexplained(lambda: np.empty(1 << 60, np.uint8))
    assert "camera" not in told(MemoryError("mine"))
    # What this thread did not ask for is not told to it.
    thread = threading.Thread(target=lambda: pytest.raises(MemoryError, full_in_thread, full))
    thread.start()
    joined(thread)
    assert _core.take_refusal() is None


def full_in_thread(pool: rtpool.Pool) -> None:
    with rtpool.handler(pool):
        np.empty(31 * MIB, np.uint8)


def test_a_pool_that_is_gone_is_not_named() -> None:
    pool = rtpool.Pool(limit="4 MiB", when_full="raise", name="gone")
    capsule = pool._capsule
    previous = rtpool.set_handler(capsule)
    try:
        del pool
        assert unexplained(lambda: np.ones(MIB))
    finally:
        rtpool.set_handler(previous)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11; before, there is a cause")
def test_the_note_is_one_line(full: rtpool.Pool) -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(24 * MIB, np.uint8)
    (note,) = caught.value.__notes__
    assert "\n" not in note
    assert str(caught.value).startswith("Unable to allocate 24.0 MiB for an array with shape")


def test_sizes_come_back_as_they_were_given() -> None:
    pool = rtpool.Pool("10 MB", limit="200 MB", when_full="raise")
    with rtpool.handler(pool):
        kept = np.ones(100_000_000, np.uint8)
        text = refused(lambda: np.ones(150_000_000, np.uint8))
    assert "has no 150 MB: it holds" in text and "of at most 200 MB, 100 MB of that in 1 block" in text, text
    size, limit = (line.split() for line in str(pool.effective).splitlines()[1:3])
    assert size[:3] == ["size", "10", "MB"] and size[4] == "MB", size
    assert limit == ["limit", "200", "MB", "200", "MB"]
    del kept
    with pytest.raises(ValueError, match=r"limit of 200 MB is below the size of 300 MB"):
        rtpool.Pool("300 MB", limit="200 MB")
    with pytest.raises(ValueError, match=r"limit of 4,096 bytes is below the size of 1 GiB"):
        rtpool.Pool("1 GiB", limit=4096)


def test_where_the_kernel_has_no_more_that_is_said() -> None:
    memory = _core.physical_memory()
    pool = rtpool.Pool(limit=2 * memory, when_full="raise")
    with rtpool.handler(pool):
        text = refused(lambda: np.empty(memory, np.uint8))
    assert "The kernel gave it no more (ENOMEM" in text and "raise limit=" not in text, text


def test_a_pool_that_passes_on_says_so() -> None:
    with rtpool.handler(rtpool.Pool(limit="4 MiB", when_full="fallback")):
        text = refused(lambda: np.empty(1 << 46, np.uint8))
    assert "NumPy's own allocator, which was asked instead, has none either" in text, text
    assert "when_full" not in text


def test_a_limit_that_the_address_space_cut_is_named(run_python: Any) -> None:
    done = run_python(
        """
        import resource
        import numpy as np
        import rtpool
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
        pool = rtpool.Pool(limit="2 GB", when_full="raise")
        try:
            with rtpool.handler(pool):
                np.ones(3).resize(1_000_000_000 // 8, refcheck=False)
        except MemoryError as error:
            print(*getattr(error, "__notes__", [error.__cause__]))
        print(*pool.effective.degradations)
        """
    )
    assert "has no 1 GB" in done.stdout, done.stdout
    assert "The address space of this process leaves it no more" in done.stdout, done.stdout
    assert "raise limit=" not in done.stdout and "no address space for 2 GB" in done.stdout, done.stdout


def test_shared_pools_have_a_size_and_no_limit() -> None:
    with rtpool.SharedPool.create("5 MB") as pool, rtpool.handler(pool):
        text = refused(lambda: np.ones(10_000_000, np.uint8))
    assert "'without a name' has no 10 MB: it holds 5 MB of at most 5 MB" in text, text
    assert "create it with a larger size" in text and "limit=" not in text


def test_the_default_pools_limit_is_the_environments(run_python: Any) -> None:
    done = run_python(
        """
        import numpy as np
        import rtpool
        rtpool.activate()
        try:
            np.ones(10_000_000, np.uint8)
        except MemoryError as error:
            print(*getattr(error, "__notes__", [error.__cause__]))
        """,
        RTPOOL_LIMIT="8 MB",
        RTPOOL_WHEN_FULL="raise",
    )
    assert "pool 'default' has no 10 MB" in done.stdout and "of at most 8 MB" in done.stdout, done.stdout
    assert "never fits: raise RTPOOL_LIMIT, or use" in done.stdout


def test_plans_speak_in_units_of_the_limit() -> None:
    plan = rtpool.Plan([rtpool.PlanEntry(1 << 20, 1 << 20, 100, 100, 0)])
    with pytest.raises(MemoryError, match=r"the plan needs 104\.9 MB, pool 'small' may hold 20 MB"):
        rtpool.Pool(limit="20 MB", name="small").prepare(plan)


def test_what_a_handler_swallowed_is_not_told_of_a_later_error() -> None:
    pool = rtpool.Pool(limit="4 MiB", when_full="raise", name="earlier")
    previous = rtpool.set_handler(pool)
    try:
        with pytest.raises(MemoryError):
            np.ones(3).resize(1 << 20, refcheck=False)
    finally:
        rtpool.set_handler(previous)
    with pytest.raises(MemoryError) as caught, rtpool.handler(rtpool.Pool()):
        raise MemoryError
    assert "earlier" not in told(caught.value)
