"""Explicit huge pages of a kernel that has some: they serve one size after the other, and go with the pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGES = 64  # of 2 MiB
# vm.nr_hugepages is about those of the kernel's default size.
SETTING = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """So many free explicit huge pages of 2 MiB."""
    if os.environ.get("RTPOOL_TEST_HUGE_PAGES") != "1":
        pytest.skip("takes explicit huge pages for the whole machine; RTPOOL_TEST_HUGE_PAGES=1 permits it")
    if not SETTING.exists():
        pytest.skip("this kernel has no explicit huge pages of 2 MiB")
    before = int(SETTING.read_text())
    try:
        SETTING.write_text(str(before + PAGES))
    except OSError as error:
        pytest.skip(f"{SETTING} cannot be written: {error}")
    try:
        if int(SETTING.read_text()) != before + PAGES:
            pytest.skip("the kernel finds no memory for explicit huge pages")
        yield
    finally:
        SETTING.write_text(str(before))


def test_waves_of_other_sizes_in_the_same_huge_pages(run_python, huge_pages: None) -> None:
    run_python(
        f"""
        import numpy as np
        import rtpool
        MIB = 1 << 20
        free = rtpool._core.free_huge_pages(2 * MIB)
        assert free >= {PAGES}
        pool = rtpool.Pool(limit={PAGES} * 2 * MIB, huge_pages="2MiB", when_full="raise", strict=True)
        with rtpool.handler(pool):
            for _ in range(3):
                for count, size in ((55, 2), (1, 120), (11, 10), (1, 100), (3, 35), (110, 1)):
                    wave = [np.full(size * MIB, i + 1, np.uint8) for i in range(count)]
                    assert all(a.min() == a.max() == i + 1 for i, a in enumerate(wave))
                    zeros = np.zeros(MIB, np.uint8)
                    assert not zeros.any()
                    del wave, zeros
                    pool.check()
                    held = pool.stats().capacity_bytes
                    assert held <= {PAGES} * 2 * MIB
                    assert rtpool._core.free_huge_pages(2 * MIB) == free - held // (2 * MIB)
        assert pool.effective.huge_pages == "2MiB" and pool.effective.as_asked, pool.effective
        del pool
        assert rtpool._core.free_huge_pages(2 * MIB) == free
        """
    )


def test_wandering_sizes_in_huge_pages(run_python, huge_pages: None) -> None:
    """At most a quarter more than the most that was alive, in explicit huge pages all of it."""
    run_python(
        """
        import random
        import numpy as np
        import rtpool
        MIB = 1 << 20
        rng = random.Random(3)
        pool = rtpool.Pool(huge_pages="2MiB")
        kept = [None] * 12
        with rtpool.handler(pool):
            for n in range(3000):
                at = rng.randrange(12)
                kept[at] = None
                kept[at] = np.full(rng.randrange(4096, 6 * MIB), n & 255, np.uint8)
                other = kept[n % 12]
                assert other is None or other[0] == other[-1]
                stats = pool.stats()
                assert stats.capacity_bytes <= stats.peak_bytes * 1.25 + 12 * MIB, stats
        assert pool.effective.huge_pages == "2MiB", pool.effective
        pool.check()
        """
    )
