"""What the kernel does to a pool's memory by itself: it gathers small pages into huge ones, and who touches them waits.

A frozen pool leaves it nothing to gather. Where huge pages are larger than a frame, a pool's memory is of none of them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtpool import _core

FRAME = 2 << 20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
COLLAPSE = 25  # MADV_COLLAPSE


def _gathers() -> bool:
    """Whether the kernel makes a huge page of small ones on request."""
    setting = _core.transparent_huge_setting()
    if mmap.PAGESIZE != 4096 or not setting or "[never]" in Path(setting).read_text():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 2 * FRAME, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        view = (ctypes.c_char * len(room)).from_buffer(room)
        frame = -(-ctypes.addressof(view) // FRAME) * FRAME
        del view
        room[:] = bytes(len(room))
        return libc.madvise(ctypes.c_void_p(frame), ctypes.c_size_t(FRAME), COLLAPSE) == 0


gathered = pytest.mark.skipif(not _gathers(), reason="this kernel makes no huge pages of 2 MiB on request")

LOOK = """
import numpy as np
import rtpool

def look(array):
    '''KiB of the mapping that holds an array: all of it, and what is in huge pages.'''
    address, figures, inside = array.ctypes.data, {}, False
    for line in open("/proc/self/smaps"):
        name, _, rest = line.partition(" ")
        if "-" in name:
            begin, end = (int(part, 16) for part in name.split("-"))
            inside = begin <= address < end
        elif inside:
            figures[name] = int(rest.split()[0]) if rest.split()[0].isdigit() else 0
    return figures["Size:"], figures["AnonHugePages:"]
"""


@gathered
def test_a_frozen_pool_is_of_huge_pages(run_python) -> None:
    run_python(
        LOOK
        + """
pool = rtpool.Pool()
with rtpool.handler(pool):
    kept = [np.ones(1 << 17, np.uint8) for _ in range(40)]  # the first frame comes in parts
size, huge = look(kept[0])
assert size > 4 << 10 and size % 2048 == 0, size
pool.freeze()
assert look(kept[0]) == (size, size), (size, look(kept[0]))
assert all((array == 1).all() for array in kept)
pool.unfreeze()
pool.check()
"""
    )


@gathered
def test_a_section_runs_in_huge_pages(run_python) -> None:
    run_python(
        LOOK
        + """
pool = rtpool.Pool()
kept = []
with rtpool.realtime(pool=pool, warmup=10) as rt:
    for number in range(20):
        with rt.iteration():
            kept.append(np.ones(1 << 16, np.uint8))
            work = np.ones(1 << 19) * 2 + 1
            kept = kept[-8:]
    size, huge = look(kept[0])
assert size % 2048 == 0 and huge == size, (size, huge)
assert rt.report.kernel_calls == 0 and rt.report.misses == 0, rt.report
"""
    )


@pytest.fixture
def eager_daemon() -> Iterator[None]:
    """A kernel that makes huge pages of any memory, all the time."""
    if os.environ.get("RTPOOL_TEST_HUGE_PAGES") != "1":
        pytest.skip("changes settings of the whole machine; RTPOOL_TEST_HUGE_PAGES=1 permits it")
    settings = {"enabled": "always", "khugepaged/defrag": "1", "khugepaged/pages_to_scan": "65536"}
    settings |= {"khugepaged/scan_sleep_millisecs": "10", "khugepaged/alloc_sleep_millisecs": "10"}
    before: dict[Path, str] = {}
    try:
        for name, value in settings.items():
            text = (HUGE_PAGES / name).read_text()
            before[HUGE_PAGES / name] = text[text.find("[") + 1 : text.find("]")] if "[" in text else text
            (HUGE_PAGES / name).write_text(value)
    except OSError as error:
        pytest.skip(f"{error}")
    else:
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)


@pytest.mark.skipif(mmap.PAGESIZE == 4096, reason="with pages of 4 KiB huge pages are frames")
def test_what_went_back_stays_away_where_huge_pages_are_larger_than_frames(run_python, eager_daemon: None) -> None:
    run_python(
        f"""
import mmap, pathlib, time
import numpy as np
import rtpool

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

def scans():
    return int(pathlib.Path("{HUGE_PAGES}/khugepaged/full_scans").read_text())

pool = rtpool.Pool()
with rtpool.handler(pool):
    arrays = [np.ones(1 << 20, np.uint8) for _ in range(200)]
    kept = arrays[::20]
    del arrays
    pool.trim()
    before = resident()
    assert pool.stats().resident_bytes <= 30 << 20, pool.stats()
    end = scans() + 3
    while scans() < end:
        time.sleep(0.02)
    again = np.ones(1 << 20, np.uint8)
assert resident() <= before + (4 << 20), (before >> 20, resident() >> 20, pool.stats())
pool.check()
"""
    )
