"""Every option of a pool does what it says, and wrong arguments raise errors that help."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import rtpool
from rtpool import Pool, _core
from rtpool._support.huge_pages import explicit_fix

MIB = 1 << 20


def test_size_is_made_ready(pool: Pool) -> None:
    stats = pool.stats()
    assert stats.capacity_bytes >= 16 * MIB
    assert stats.resident_bytes >= 16 * MIB
    assert stats.largest_free_bytes > 0
    assert pool.effective.size >= 16 * MIB


def test_nothing_is_held_without_a_size() -> None:
    assert Pool().stats().capacity_bytes == 0


def test_no_growth_while_the_size_is_enough(pool: Pool) -> None:
    before = pool.stats()
    with rtpool.handler(pool):
        a = np.empty(10 * MIB, np.uint8)
        a[:] = 1
    assert pool.stats().growths == before.growths
    assert a in pool


def test_a_full_pool_raises_at_its_limit() -> None:
    for when_full in ("grow", "raise"):
        pool = Pool(limit="4 MiB", when_full=when_full)
        with rtpool.handler(pool):
            kept = np.empty(2 * MIB, np.uint8)
            with pytest.raises(MemoryError):
                np.empty(64 * MIB, np.uint8)
            again = np.empty(1000)
        assert kept in pool
        assert again in pool
        assert pool.stats().failures == 1
        assert pool.stats().capacity_bytes <= 4 * MIB
        pool.check()


def test_a_full_pool_falls_back_to_the_default_allocator() -> None:
    pool = Pool(limit="4 MiB", when_full="fallback")
    with rtpool.handler(pool):
        kept = np.ones(64 * MIB, np.uint8)
        zeros = np.zeros(64 * MIB, np.uint8)
    assert kept not in pool
    assert rtpool.owner(kept) is None
    assert kept.all()
    assert not zeros.any()
    assert pool.stats().fallbacks == pool.stats().fallback_count == 2
    kept.resize(65 * MIB, refcheck=False)
    assert kept[: 64 * MIB].all()
    assert not kept[64 * MIB :].any()
    del kept, zeros
    assert pool.stats().fallback_count == 0
    assert pool.stats().misuses == 0
    pool.check()


def test_the_limit_of_a_pool_that_does_not_grow_is_its_size() -> None:
    assert Pool("4 MiB", when_full="raise").effective.limit == 4 * MIB
    assert Pool("4 MiB", when_full="raise", limit="8 MiB").effective.limit == 8 * MIB
    assert Pool("4 MiB").effective.limit == _core.physical_memory()


def test_zero_on_free() -> None:
    pool = Pool("4 MiB", zero_on_free=True)
    with rtpool.handler(pool):
        secret = np.full(100_000, 7, np.uint8)
        address = secret.ctypes.data
        del secret
        again = np.empty(100_000, np.uint8)
    assert again.ctypes.data == address
    assert not again.any()


def test_zeros_are_zero_on_recycled_memory(pool: Pool) -> None:
    with rtpool.handler(pool):
        for size in (1, 63, 64, 1000, 5000, 100_000, 3 * MIB):
            for _ in range(3):
                dirty = np.full(size, 255, np.uint8)
                del dirty
                assert not np.zeros(size, np.uint8).any(), size


def test_alignment(pool: Pool) -> None:
    with rtpool.handler(pool):
        for size in (1, 8, 63, 64, 65, 200, 1000, 4000, 4032):
            kept = [np.empty(size, np.uint8) for _ in range(20)]
            assert all(a.ctypes.data % 64 == 0 for a in kept)
        for size in (4096, 5000, 12_345, 100_000, 3 * MIB):
            kept = [np.empty(size, np.uint8) for _ in range(3)]
            assert all(a.ctypes.data % 4096 == 0 for a in kept)


def test_lock_is_in_force_or_reported() -> None:
    pool = Pool("1 MiB", lock=True)
    effective = pool.effective
    assert effective.asked["lock"] is True
    if not effective.lock:
        (told,) = [d for d in effective.degradations if d.setting == "lock"]
        assert "memlock" in told.fix
        assert "limits.conf" in told.fix


def test_a_lock_beyond_the_limit(run_python) -> None:
    run_python(
        """
        import ctypes, os, resource, rtpool, errno
        if os.geteuid() == 0:  # root may lock anything until it gives that capability up
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.prctl(24, 14, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_IPC_LOCK
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
            os.setresuid(65534, 65534, 65534)
        else:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        pool = rtpool.Pool("8 MiB", lock=True, huge_pages=False)  # those may be refused as well
        assert pool.effective.lock is False and not pool.effective.as_asked
        (told,) = pool.effective.degradations
        assert told.setting == "lock" and told.got == 65536, told
        assert " - memlock " in told.fix and "limits.conf" in told.fix, told
        assert int(told.fix.split(" - memlock ")[1].split()[0]) >= 8192, told
        assert told.fix in str(pool.effective)
        try:
            rtpool.Pool("8 MiB", lock=True, huge_pages=False, strict=True)
        except OSError as error:
            assert error.errno in (errno.ENOMEM, errno.EPERM, errno.EAGAIN), error
            assert "RLIMIT_MEMLOCK" in str(error) and "limits.conf" in str(error)
        else:
            raise SystemExit("strict did not raise")
        """
    )


@pytest.mark.parametrize(("pages", "size"), [("2MiB", 2 * MIB), ("1GiB", 1 << 30)])
def test_huge_pages_that_the_kernel_does_not_have(pages: str, size: int) -> None:
    if _core.free_huge_pages(size):
        pytest.skip(f"this kernel has free huge pages of {pages}")
    pool = Pool("4 MiB", huge_pages=pages)
    with rtpool.handler(pool):
        assert np.ones(1000) in pool
    assert pool.effective.huge_pages != pages
    (told,) = pool.effective.degradations
    assert told.setting == "huge_pages"
    assert told.fix == explicit_fix(size, -(-4 * MIB // size))
    with pytest.raises(OSError, match="nr_hugepages") as caught:
        Pool("4 MiB", huge_pages=pages, strict=True)
    assert caught.value.errno


def test_no_huge_pages() -> None:
    pool = Pool("4 MiB", huge_pages=False)
    assert pool.effective.huge_pages is False
    assert pool.effective.as_asked


def test_without_prefault_pages_come_at_first_touch() -> None:
    pool = Pool("64 MiB", prefault=False, huge_pages=False)
    assert pool.stats().resident_bytes < 8 * MIB
    assert pool.effective.prefault is False
    with rtpool.handler(pool):
        kept = np.ones(32 * MIB, np.uint8)
    assert pool.stats().resident_bytes >= kept.nbytes


def test_trim_gives_back_what_is_free() -> None:
    pool = Pool()
    with rtpool.handler(pool):
        kept = np.full(1000, 7)
        large = np.ones(64 * MIB, np.uint8)
        del large
    before = pool.stats()
    given = pool.trim()
    after = pool.stats()
    assert given >= 60 * MIB
    assert before.resident_bytes - after.resident_bytes >= 60 * MIB
    assert (kept == 7).all()
    with rtpool.handler(pool):
        assert not np.zeros(64 * MIB, np.uint8).any()
    pool.check()


def test_a_frozen_pool_falls_back_or_raises(pool: Pool) -> None:
    with rtpool.handler(pool):
        pool.freeze()
        assert pool.frozen
        assert "frozen" in repr(pool)
        fallback = np.ones(64 * MIB, np.uint8)
        assert fallback not in pool
        assert pool.stats().fallbacks == 1 + (pool.stats().fallbacks - 1)
        assert (64 * MIB, 1) in pool._misses_by_size()
        pool.freeze(on_miss="raise")
        with pytest.raises(MemoryError):
            np.empty(64 * MIB, np.uint8)
        assert np.empty(1 * MIB, np.uint8) in pool
        pool.unfreeze()
        assert not pool.frozen
        assert np.empty(64 * MIB, np.uint8) in pool


def test_check_raises_corruption_error(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.check()

    class Broken(Pool):
        __slots__ = ()

        def _check(self) -> tuple[str, str]:
            return ("PR-3", "two free runs are adjacent")

    with pytest.raises(rtpool.CorruptionError, match="PR-3: two free runs") as caught:
        Broken().check()
    assert caught.value.invariant == "PR-3"


def test_repr_tells(pool: Pool) -> None:
    with rtpool.handler(pool):
        kept = np.ones(MIB, np.uint8)
    assert repr(pool) == "<rtpool.Pool 'test': 16 MiB held, 1 MiB in 1 live block>"
    del kept


def test_names() -> None:
    assert Pool(name="frames").name == "frames"
    assert Pool(name="ä" * 31).name == "ä" * 31
    assert Pool().name.startswith("pool-")
    assert Pool().name != Pool().name
    for bad in ("", "x" * 64, "a\0b", "ä" * 32):
        with pytest.raises(ValueError, match="name must have"):
            Pool(name=bad)
    with pytest.raises(TypeError, match="name"):
        Pool(name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": -1}, "size must not be negative"),
        ({"size": "64 XiB"}, "unknown unit 'XiB'"),
        ({"size": 1 << 60}, "address space"),
        ({"size": "8 MiB", "limit": "4 MiB"}, "limit of 4 MiB is below the size of 8 MiB"),
        ({"limit": 0}, "limit must be more than 0"),
        ({"limit": "nonsense"}, "limit 'nonsense' is not a size"),
        ({"huge_pages": "4MiB"}, "huge_pages must be one of 'auto' or|huge_pages must be one of"),
        ({"huge_pages": True}, "huge_pages must be one of"),
        ({"huge_pages": 0}, "huge_pages must be one of"),
        ({"when_full": "wait"}, "when_full must be one of 'grow', 'fallback', 'raise', not 'wait'"),
    ],
)
def test_wrong_values(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Pool(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": True},
        {"size": 1.5},
        {"size": None},
        {"limit": 2.5},
        {"prefault": 1},
        {"lock": "no"},
        {"strict": None},
        {"zero_on_free": 0},
        {"colour": 1},
    ],
)
def test_wrong_types(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Pool(**arguments)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Pool(0, "name")  # type: ignore[misc]


def test_more_than_the_machine_has() -> None:
    too_much = 2 * _core.physical_memory()
    with pytest.raises(MemoryError, match="physical memory"):
        Pool(too_much)


def test_freeze_refuses_other_words(pool: Pool) -> None:
    with pytest.raises(ValueError, match="on_miss must be one of"):
        pool.freeze("wait")  # type: ignore[arg-type]
    assert not pool.frozen


def test_pools_are_equal_to_themselves_only(pool: Pool) -> None:
    other = Pool()
    assert pool == pool
    assert pool != other
    assert pool != "pool"
    assert len({pool, other}) == 2


def test_pools_do_not_travel(pool: Pool) -> None:
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="SharedPool"):
            travel(pool)


def test_contains_needs_an_array(pool: Pool) -> None:
    with pytest.raises(TypeError, match="NumPy array"):
        "x" in pool  # noqa: B015


def test_objects_without_a_core_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        object.__new__(Pool)
    with pytest.raises(TypeError):
        _core.Pool()  # type: ignore[call-arg]


def test_weak_references_and_end(pool: Pool) -> None:
    made = Pool("1 MiB")
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_a_subclass_is_a_pool() -> None:
    class Mine(Pool):
        pass

    mine = Mine("1 MiB", name="mine")
    with rtpool.handler(mine):
        a = np.ones(10)
    assert rtpool.owner(a) is mine
    assert repr(mine).startswith("<rtpool.Mine 'mine'")


def test_trim_leaves_nothing_behind(run_python) -> None:
    run_python(
        """
        import numpy as np, rtpool
        def resident():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
        rng = np.random.default_rng(1)
        pool = rtpool.Pool()
        with rtpool.handler(pool):
            np.ones(10)
            before = resident()
            sizes = [int(2 ** rng.uniform(0, 22)) for _ in range(500)] + [100 << 20]
            arrays = [np.ones(size, np.uint8) for size in sizes]
            kept = [a.copy() for a in arrays[::100]]
            expected = [a.tobytes() for a in kept]
            assert resident() > before + 200
            del arrays
            given = pool.trim()
        assert given > 100 << 20, given
        live = pool.stats().current_bytes / 2**20
        assert resident() <= before + live + sum(map(len, expected)) / 2**20 + 8, (before, resident(), live)
        assert [a.tobytes() for a in kept] == expected
        pool.check()
        """
    )


def test_locked_memory_counts_as_locked(run_python) -> None:
    run_python(
        """
        import numpy as np, rtpool
        def locked():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmLck"))
        before = locked()
        pool = rtpool.Pool("4 MiB", lock=True, huge_pages=False)
        if pool.effective.lock:
            assert pool.effective.as_asked
            assert locked() - before >= 4 << 20
            with rtpool.handler(pool):
                kept = np.ones(10 << 20, np.uint8)
            if pool.effective.lock:
                assert locked() - before >= 10 << 20
        """
    )
