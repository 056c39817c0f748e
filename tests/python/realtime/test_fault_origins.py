"""Each kind of page fault is provoked on purpose in one iteration and named right, and all are accounted for."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtpool

PAGE = os.sysconf("SC_PAGESIZE")
AT = 3  # the iteration that faults
LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]


def _watched() -> bool:
    with rtpool.realtime(iterations=1) as rt:
        for _ in rt:
            pass
    return rt.report.environment.watch == "exact"


pytestmark = [
    pytest.mark.skipif(not _watched(), reason="the kernel does not let threads watch themselves here"),
    pytest.mark.usefixtures("without_huge_pages"),  # a fault brings one page here
]


def section(body: Callable[[int], object], **options: object) -> rtpool._realtime.report.Report:
    """Ten iterations of `body`, called with the number of the iteration."""
    options = {"warmup": 2, "iterations": 10, **options}
    with rtpool.realtime(**options) as rt:  # type: ignore[arg-type]
        for tick in rt:
            body(tick.index)
    return rt.report


def once(touch: Callable[[], object]) -> Callable[[int], object]:
    """`touch` in iteration `AT` alone."""
    return lambda index: touch() if index == AT else None


def the_one(report: rtpool._realtime.report.Report, kind: str, where: str):  # noqa: ANN201
    """The origins of that kind and place as one: its faults, its first iteration, the functions."""
    found = [o for o in report.fault_origins if o.kind == kind and where in o.where]
    assert found, [str(o) for o in report.fault_origins]
    return sum(o.count for o in found), min(o.first for o in found if o.first is not None), {o.function for o in found}


def nameless(pages: int) -> mmap.mmap:
    room = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        room.madvise(mmap.MADV_NOHUGEPAGE)
    return room


def address_of(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def pages_of(array: np.ndarray[Any, Any]) -> int:
    """How many of the kernel's pages an array lies in; blocks begin on any multiple of 4 KiB."""
    begin = array.ctypes.data
    return (begin + array.nbytes - 1) // PAGE - begin // PAGE + 1


def of_libc(functions: set[str], name: str) -> bool:
    """Whether one of the functions is libc's of that name; musl is in its loader."""
    return any(function.startswith((f"{name} (libc", f"{name} (ld-musl")) for function in functions)


def run_here(run_python: Any, function: str) -> None:
    """In a process of its own: in this one the tests before have left arenas with room for all of the objects."""
    folder = Path(__file__).parent
    run_python(f"import {Path(__file__).stem} as tests; tests.{function}()", PYTHONPATH=str(folder))


def test_no_fault_says_so_in_one_line() -> None:
    # CPython rewrites a function at its eighth call; where somebody has forked before, its page is copied then.
    report = section(lambda index: None, warmup=10)
    assert report.fault_origins == ()
    assert "page faults  none" in str(report).splitlines()
    assert json.loads(report.to_json())["fault_origins"] == []


def test_a_pool_that_is_not_resident() -> None:
    pool = rtpool.Pool("8 MiB", name="lazy", prefault=False, huge_pages=False)
    kept = []
    report = section(once(lambda: kept.append(np.ones(64 * PAGE, np.uint8))), pool=pool, warmup=0)
    count, first, functions = the_one(report, "pool", "pool lazy: large block")
    assert count == pages_of(kept[0])
    assert first == AT
    assert any("multiarray" in name or "memset" in name for name in functions), functions


def test_a_shared_pool() -> None:
    with rtpool.SharedPool.create("4 MiB", prefault=False) as pool:
        with rtpool.handler(pool):
            arrays = [np.empty(16 * PAGE, np.uint8)]
        count, first, _ = the_one(section(once(lambda: arrays[0].fill(1))), "pool", "shared pool: data")
        assert (count, first) == (pages_of(arrays[0]), AT)
        arrays.clear()


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="objects come from mimalloc")
def test_objects_in_arenas_of_pythons_own(run_python) -> None:
    run_here(run_python, "objects_in_arenas_of_pythons_own")


def objects_in_arenas_of_pythons_own() -> None:
    kept: list[bytes] = []
    report = section(once(lambda: kept.extend(bytes(100) for _ in range(60_000))), objects="keep")
    count, first, functions = the_one(report, "objects", "arena of Python's own")
    assert count > 1000 // (PAGE // 4096)
    assert first == AT
    assert functions

    # Gone before anyone can look: what first touched it tells.
    report = section(once(lambda: [bytes(100) for _ in range(60_000)] and None), objects="keep")
    assert the_one(report, "objects", "arena of Python's own")[0] > 800 // (PAGE // 4096)


@pytest.mark.skipif(getattr(sys, "_is_gil_enabled", lambda: True)(), reason="free-threaded builds only")
def test_objects_in_heaps_of_free_threaded_python(run_python) -> None:
    run_here(run_python, "objects_in_heaps_of_free_threaded_python")


def objects_in_heaps_of_free_threaded_python() -> None:
    kept: list[bytes] = []
    report = section(once(lambda: kept.extend(bytes(100) for _ in range(60_000))))
    count, first, functions = the_one(report, "objects", "heap of free-threaded Python")
    assert count > 1000 // (PAGE // 4096)
    assert first == AT
    assert functions
    assert "MIMALLOC_PURGE_DELAY=-1" in str(report)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="objects come from mimalloc")
def test_objects_in_arenas_of_a_pool(run_python) -> None:
    run_here(run_python, "objects_in_arenas_of_a_pool")


def objects_in_arenas_of_a_pool() -> None:
    kept: list[bytes] = []
    pool = rtpool.Pool("32 MiB", name="lazy", prefault=False, huge_pages=False)
    report = section(once(lambda: kept.extend(bytes(100) for _ in range(90_000))), pool=pool)
    count, first, functions = the_one(report, "objects", "pool lazy: object arena")
    assert count > 1000 // (PAGE // 4096)
    assert first == AT
    assert functions


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames are objects, each by itself")
@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="objects come from mimalloc")
def test_frames_of_pythons_calls() -> None:
    """Pieces that Python maps as calls get deeper, and unmaps as they are back."""

    def deep(left: int) -> int:
        return left and deep(left - 1)

    count, first, functions = the_one(
        section(once(lambda: deep(600)), objects="keep"), "objects", "frames of Python's calls"
    )
    assert count >= (48 << 10) // PAGE
    assert first == AT
    assert functions


def test_libcs_heap() -> None:
    size, touched = 80 << 20, 3 << 20  # more than libc has at hand
    kept = []

    def take() -> None:
        kept.append(LIBC.malloc(size))
        ctypes.memset(kept[-1] + size - touched, 1, touched)

    count, first, functions = the_one(section(once(take)), "libc", "heap")
    assert count >= touched // PAGE
    assert first == AT
    assert of_libc(functions, "memset"), functions


def test_a_block_that_libc_maps_by_itself(run_python) -> None:
    """In a process whose libc nobody has tuned; there while the report is made, and gone by then."""
    done = run_python(
        """
import ctypes, rtpool
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 4 << 20
with rtpool.realtime(warmup=2, iterations=5, malloc="keep") as rt:
    for tick in rt:
        if tick.index == 3:
            kept = ctypes.c_void_p(libc.malloc(size))
            ctypes.memset(kept, 1, size)
        if tick.index == 4:
            short = ctypes.c_void_p(libc.malloc(size))
            ctypes.memset(short, 1, size)
            libc.free(short)
print(sum(o.count for o in rt.report.fault_origins if o.kind == "libc"), rt.report.minor_faults)
print(rt.report)
"""
    )
    of_libc, minor = map(int, done.stdout.splitlines()[0].split())
    assert minor >= of_libc >= 2 * (4 << 20) // PAGE, done.stdout
    assert "a block with a mapping of its own" in done.stdout
    assert "block with a mapping of its own, gone since" in done.stdout


def test_the_threads_own_stack() -> None:
    """As far down as nobody has been yet, in a thread of its own, on a stack of a size that libc has not kept."""
    got = []

    def low_end() -> int:
        attributes = ctypes.create_string_buffer(256)
        LIBC.pthread_self.restype = ctypes.c_ulong
        assert LIBC.pthread_getattr_np(ctypes.c_ulong(LIBC.pthread_self()), attributes) == 0
        begin, size = ctypes.c_void_p(), ctypes.c_size_t()
        assert LIBC.pthread_attr_getstack(attributes, ctypes.byref(begin), ctypes.byref(size)) == 0
        LIBC.pthread_attr_destroy(attributes)
        return begin.value

    def run() -> None:
        begin = low_end()
        got.append(section(once(lambda: ctypes.memset(begin + PAGE, 1, 4 * PAGE))))

    before = threading.stack_size(12 << 20)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.stack_size(before)
    count, first, _ = the_one(got[0], "stack", "stack of this thread")
    assert 4 <= count <= 5
    assert first == AT


def test_the_stack_of_a_thread_that_starts() -> None:
    """Of a size that libc does not keep for the next thread; it waits until the section has been left."""
    stop = threading.Event()
    threads = []

    def start() -> None:
        before = threading.stack_size(64 << 20)
        threads.append(threading.Thread(target=stop.wait))
        threads[0].start()
        threading.stack_size(before)

    def until_it_waits() -> None:
        # The kernel tells where a thread's stack is while it sleeps.
        state = Path(f"/proc/self/task/{threads[0].native_id}/syscall")
        while state.read_text().startswith("running"):
            os.sched_yield()

    report = section(lambda index: start() if index == AT else until_it_waits() if index == 9 else None)
    stop.set()
    threads[0].join()
    count, first, functions = the_one(report, "stack", f"stack of thread {threads[0].native_id}")
    assert count >= 1
    assert first == AT
    assert functions


def _segment(library: str, flags: str) -> tuple[int, int]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if len(fields) == 6 and library in fields[5] and fields[1] == flags:
            begin, end = (int(text, 16) for text in fields[0].split("-"))
            return begin, end
    raise AssertionError(f"no {flags} segment of {library}")


@pytest.mark.parametrize(("flags", "part"), [("r-xp", "code"), ("r--p", "data")])
def test_code_and_tables_of_a_library(flags: str, part: str) -> None:
    """Pages taken from a library come back by a fault where they are next used."""
    begin, end = _segment("_multiarray_umath", flags)
    size = min(end - begin, 64 * PAGE)
    LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def drop() -> None:
        assert LIBC.madvise(begin, size, 4) == 0  # MADV_DONTNEED
        ctypes.string_at(begin, size)

    count, first, functions = the_one(section(once(drop)), "file", f": {part}")
    assert 1 <= count <= 64  # the kernel maps neighbours at once
    assert first == AT
    assert functions


def test_a_file_that_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    path.write_bytes(b"x" * 64 * PAGE)
    with path.open("r+b") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        report = section(once(lambda: view.write(b"y" * 64 * PAGE)))
        count, first, _ = the_one(report, "file", "table.bin: file contents")
        assert count >= 64
        assert first == AT
    finally:
        view.close()


def test_a_file_mapped_and_unmapped_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "short.bin"

    def write() -> None:
        made = np.memmap(path, np.uint8, "w+", shape=8 * PAGE)
        made[:] = 1
        made._mmap.close()

    count, first, _ = the_one(section(once(write)), "file", "short.bin: contents, mapped meanwhile")
    assert count >= 8
    assert first == AT


def test_nameless_memory_and_memory_that_is_gone() -> None:
    room = nameless(32)
    where = address_of(room)
    report = section(once(lambda: ctypes.memset(where, 1, 32 * PAGE)))
    count, first, functions = the_one(report, "other", "nameless memory")
    assert (count, first) == (32, AT)
    assert all(of_libc({function}, "memset") for function in functions), functions

    text = b"x" * 32 * PAGE  # made before: it may have a mapping of its own, beside the other one

    def come_and_go() -> None:
        with nameless(32) as short:
            short.write(text)

    assert the_one(section(once(come_and_go)), "other", "memory that is gone since")[:2] == (32, AT)


def test_faults_of_the_kernel_in_a_call(tmp_path: Path) -> None:
    room = nameless(16)
    with open("/dev/zero", "rb", buffering=0) as zeros:
        report = section(once(lambda: zeros.readinto(room)))
    count, first, functions = the_one(report, "other", "nameless memory")
    assert (count, first) == (16, AT)
    assert functions == {"the kernel, in a call of this thread"}


def test_memory_that_the_kernel_makes_resident_itself() -> None:
    """It counts these as faults of the thread, and has no instruction to tell."""
    room = nameless(64)
    LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    where = address_of(room)
    results = []
    report = section(once(lambda: results.append(LIBC.madvise(where, 64 * PAGE, 23))))  # MADV_POPULATE_WRITE
    if results != [0]:
        pytest.skip("this kernel has no MADV_POPULATE_WRITE")
    [unseen] = [origin for origin in report.fault_origins if origin.first is None]
    assert unseen.where.startswith("not seen: the kernel made memory resident itself")
    assert unseen.count == 64


def test_an_ordinary_user_is_told_of_what_it_does_not_see(run_python) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    if level != 2:
        pytest.skip(f"perf_event_paranoid is {level}, not the kernel's default 2")
    done = run_python(
        """
import os, mmap, rtpool
with rtpool.realtime(iterations=1) as rt:  # imports what a report needs
    for tick in rt:
        pass
print(rt.report.fault_origins)
room = mmap.mmap(-1, 64 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
zeros = open("/dev/zero", "rb", buffering=0)
os.setuid(65534)
with rtpool.realtime(warmup=2, iterations=5) as rt:
    for tick in rt:
        if tick.index == 3:
            zeros.readinto(room)
print(rt.report)
"""
    )
    assert "x other: not seen: the kernel's own in calls of this thread" in done.stdout
    assert "kernel.perf_event_paranoid=1" in done.stdout


def test_a_refused_watch_says_what_would_give_it(run_python) -> None:
    number = {"x86_64": 298, "aarch64": 241}.get(os.uname().machine)
    if number is None:
        pytest.skip("the number of perf_event_open is not known here")
    done = run_python(
        f"""
import ctypes, struct, mmap, rtpool
program = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *line) for line in program)
text = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
held = Program(len(program), ctypes.addressof(text))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.byref(held), 0, 0) != 0:
    raise SystemExit("no seccomp here")
room = mmap.mmap(-1, 64 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
with rtpool.realtime(warmup=2, iterations=5) as rt:
    for tick in rt:
        if tick.index == 3:
            room.write(b"x" * len(room))
print(rt.report)
[origin] = rt.report.fault_origins
assert origin.count == rt.report.minor_faults + rt.report.major_faults and origin.first is None
"""
    )
    if "no seccomp" in done.stderr:
        pytest.skip("this kernel or container refuses seccomp filters")
    assert "x other: not seen: the kernel did not let the section watch (EPERM: " in done.stdout


def test_more_faults_than_the_ring_holds_are_accounted_for() -> None:
    room = nameless(20_000)
    where = address_of(room)
    report = section(once(lambda: ctypes.memset(where, 1, 20_000 * PAGE)))
    assert sum(origin.count for origin in report.fault_origins) == report.minor_faults + report.major_faults >= 20_000
    [lost] = [origin for origin in report.fault_origins if origin.first is None]
    assert "ring ran over" in lost.where
    assert the_one(report, "other", "nameless memory")[1] == AT


def test_a_loop_that_faults_for_ever_is_summed_up() -> None:
    """Ever new memory: the buffers are fixed, and all faults stay counted."""
    kept = []

    def body(index: int) -> None:
        kept.append(nameless(500))
        ctypes.memset(address_of(kept[-1]), 1, 500 * PAGE)

    report = section(body, iterations=30)
    count, first, _ = the_one(report, "other", "nameless memory")
    assert count == 30 * 500
    assert first == 0
    assert sum(origin.count for origin in report.fault_origins) >= report.minor_faults


def test_warm_up_is_not_in_it() -> None:
    rooms = [nameless(8) for _ in range(4)]
    report = section(lambda index: rooms[index + 2].write(b"x" * 8 * PAGE) if index < 2 else None)
    # Two of the four were touched by the warm-up.
    assert the_one(report, "other", "nameless memory")[:2] == (16, 0)
    with rtpool.realtime(warmup=100) as rt:
        for _ in rt:
            nameless(8).write(b"x" * PAGE)
            break
    assert rt.report.fault_origins == ()


def test_threads_see_their_own_and_nested_sections_both() -> None:
    mine, theirs = nameless(10), nameless(20)
    reports = {}

    def other() -> None:
        reports["other"] = section(once(lambda: theirs.write(b"x" * 20 * PAGE)))

    def both() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        mine.write(b"x" * 10 * PAGE)

    # What starting the thread costs is not the point.
    outer = section(once(both), pool=rtpool.Pool())
    assert the_one(reports["other"], "other", "nameless memory")[0] == 20
    assert the_one(outer, "other", "nameless memory")[0] == 10

    room = nameless(10)
    with rtpool.realtime(iterations=1) as around:
        for _ in around:
            inner = section(once(lambda: room.write(b"x" * 10 * PAGE)), warmup=0)
    assert the_one(inner, "other", "nameless memory")[0] == 10
    assert the_one(around.report, "other", "nameless memory")[0] == 10


def test_text_html_json_and_picture(tmp_path: Path) -> None:
    paths = [tmp_path / f"file{i}.bin" for i in range(7)]
    views = []
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * (i + 1) * 8 * PAGE)
        with path.open("r+b") as file:
            views.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    written = [b"y" * len(view) for view in views]
    try:
        report = section(lambda index: views[index].write(written[index]) if 0 <= index < 7 else None)
        lines = str(report).splitlines()
        begin = lines.index("page faults came from:")
        assert "file6.bin" in lines[begin + 1]
        assert "first in iteration 6" in lines[begin + 1]
        assert [("x from" in line) for line in lines[begin + 1 : begin + 7]] == [False] * 5 + [True]
        assert lines[begin + 7].startswith("  so: read files that are mapped once before the section")
        assert all(f"file{i}.bin" in report._repr_html_() for i in range(7))
        origins = json.loads(report.to_json())["fault_origins"]
        assert origins[0].keys() == {"kind", "where", "count", "first", "function"}
        assert sum(origin["count"] for origin in origins) >= report.minor_faults
        if _has_matplotlib():
            report.plot(tmp_path / "report.svg")
            assert "file6.bin" in (tmp_path / "report.svg").read_text()
    finally:
        for view in views:
            view.close()


def _has_matplotlib() -> bool:
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.rcParams["svg.fonttype"] = "none"
    return True
