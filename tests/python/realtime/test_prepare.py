"""What a program does for the first time in its loop costs no page fault: the section has touched it before."""

from __future__ import annotations

import os
import sys

import pytest
from libcs import keeps_memory

FIRST_TIMES = {
    "matrix product": ("a = np.ones((400, 400))", "a @ a"),
    "matrix product, single precision": ("a = np.ones((400, 400), np.float32)", "a @ a"),
    "larger matrix product": ("a = np.ones((768, 768))", "a @ a"),
    "matrix product, complex": ("a = np.ones((400, 400), complex)", "a @ a"),
    "wide matrix product": ("a = np.ones((600, 300))", "a.T @ a"),
    "matrix times vector": ("a = np.ones((400, 400))", "a @ a[0]"),
    "small matrices": ("a = np.eye(6)", "np.linalg.solve(a, a @ a)"),
    "deep calls": (
        "def go(n):\n    return sorted([1], key=lambda _: go(n - 1)) if n else 0",
        "go(60)",
    ),
    "exception": (
        "import traceback\ndef fail():\n    try: {}['x']\n    except KeyError: traceback.format_exc()",
        "fail()",
    ),
    "logging": (
        "import logging\nlogging.basicConfig(format='%(asctime)s %(levelname)s %(message)s')",
        "logging.warning('late by %.3f ms', 1.25)",
    ),
    "local time": ("import datetime", "datetime.datetime.now().astimezone().isoformat()"),
    "writing a file": ("import os", "open(os.devnull, 'wb').write(b'x' * 100_000)"),
    "solving": ("a = np.eye(300) + 0.1", "np.linalg.solve(a, a)"),
    "threads": (
        "import threading\ndef go():\n"
        "    threads = [threading.Thread(target=int) for _ in range(3)]\n"
        "    for one in threads: one.start()\n"
        "    for one in threads: one.join()",
        "go()",
    ),
    "random numbers": ("rng = np.random.default_rng(1)", "rng.normal(size=1000)"),
}

# Python's own objects and frames have their own tests. Where huge pages are `always`, as Debian's Arm kernels have it,
# the kernel makes one of libc's heap some time, at a fault for who touches it meanwhile; `doctor` says how to end that.
# It counts them, and so many faults are its own.
PROGRAM = """
import re
import numpy as np, rtpool
{setup}
def made_by_the_kernel():
    with open("/proc/vmstat") as counts:
        return sum(map(int, re.findall(r"^thp_collapse_alloc(?:_failed)? (\\d+)$", counts.read(), re.M)))
before = made_by_the_kernel()
pool = rtpool.Pool("32 MiB")
with pool.learn() as plan:
    pass
with rtpool.realtime(pool=pool, {options}) as rt:
    for tick in rt:
        if tick.index >= {at}:
            {work}
if rt.report.environment.watch != "exact":
    print("not watched")
made = made_by_the_kernel() - before
for origin in rt.report.fault_origins:
    if origin.kind == "libc" and origin.where == "heap" and origin.count <= made:
        made -= origin.count
    elif origin.kind != "objects":
        print(origin)
"""

# tests/run.py has the threads of OpenBLAS sleep early.
AS_USERS_HAVE_IT = {"OPENBLAS_THREAD_TIMEOUT": None}


@keeps_memory
@pytest.mark.parametrize("name", FIRST_TIMES)
@pytest.mark.parametrize(("options", "at"), [("warmup=3, iterations=6", 3), ("plan=plan, iterations=3", 0)])
def test_the_first_time_does_not_fault(run_python, name: str, options: str, at: int) -> None:
    """In the fourth iteration of a loop that is warm, and in the first one of a section that has only a plan."""
    setup, work = FIRST_TIMES[name]
    done = run_python(PROGRAM.format(setup=setup, work=work, options=options, at=at), **AS_USERS_HAVE_IT)
    if "not watched" in done.stdout:
        pytest.skip("the kernel does not let threads watch themselves here")
    assert done.stdout == ""


def other_numbers_of_threads() -> list[str]:
    """Of 1 and 2, what the tests above have not had: left alone, OpenBLAS has a thread for each processor."""
    if {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
        return ["1", "2"]
    return [threads for threads in ("1", "2") if int(threads) != len(os.sched_getaffinity(0))]


@keeps_memory
@pytest.mark.slow
@pytest.mark.parametrize("threads", other_numbers_of_threads())
@pytest.mark.parametrize("name", [name for name in FIRST_TIMES if "product" in name or name == "solving"])
def test_the_first_time_with_so_many_threads_of_blas(run_python, name: str, threads: str) -> None:
    """OpenBLAS divides the work otherwise in one thread, as many programs set it, and uses more of its buffer."""
    setup, work = FIRST_TIMES[name]
    program = PROGRAM.format(setup=setup, work=work, options="warmup=3, iterations=6", at=3)
    done = run_python(program, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads, **AS_USERS_HAVE_IT)
    if "not watched" in done.stdout:
        pytest.skip("the kernel does not let threads watch themselves here")
    assert done.stdout == ""


@pytest.mark.parametrize(("libraries", "second_thread"), [((1, 1), 0), ((2, 1), 1), ((1, 0), 1), ((0, 0), 0)])
def test_a_thread_prepares_once_and_a_child_again(run_python, libraries: tuple[int, int], second_thread: int) -> None:
    """BLAS is called once a process where its buffers are for all callers, else once a thread."""
    done = run_python(
        f"""
import os, threading
import rtpool._realtime.prepare as prepare
done, touched, begun = [], [], []
prepare._multiply = lambda: done.append(threading.get_ident())
class Core:
    touch_stack = staticmethod(lambda size: touched.append(threading.get_ident()))
    blas_libraries = staticmethod(lambda: {libraries})
    rehearse_threads = staticmethod(lambda threads, stack: begun.append(threading.get_ident()))
prepare._core = Core
first = int({libraries[0] > 0})
prepare.prepare_thread()
prepare.prepare_thread()
assert len(done) == first and len(touched) == 1
thread = threading.Thread(target=prepare.prepare_thread)
thread.start()
thread.join()
assert len(done) == first + {second_thread} and len(touched) == 2 and len(begun) == 1
if os.fork() == 0:
    prepare.prepare_thread()
    os._exit((len(done) - first - {second_thread}, len(begun)) != (first, 2))
assert os.waitpid(-1, 0)[1] == 0
"""
    )
    assert done.stderr == "" or "fork" in done.stderr  # Python 3.12 warns of forks with threads


def test_a_thread_with_a_small_stack(run_python) -> None:
    run_python(
        """
import os, threading, rtpool
threading.stack_size(max(64 << 10, os.sysconf("SC_THREAD_STACK_MIN")))  # 128 KiB on Arm
def run():
    with rtpool.realtime(warmup=2, iterations=3) as rt:
        for _ in rt:
            pass
    assert rt.report.iterations == 3
threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    )


@keeps_memory
def test_room_in_libcs_heap_is_what_the_warm_up_took_and_more(run_python) -> None:
    """Something that stays takes a part of the place in which the loop's scratch has been so far."""
    done = run_python(
        """
import ctypes
import rtpool
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
def take(size):
    piece = libc.malloc(size)
    libc.memset(piece, 1, size)
    return piece
with rtpool.realtime(pool=rtpool.Pool(), warmup=4, iterations=5) as rt:
    for tick in rt:
        if tick.index == 0:
            kept = take(700_000)
        libc.free(take(5 << 20))
if rt.report.environment.watch != "exact":
    print("not watched")
for origin in rt.report.fault_origins:
    print(origin)
"""
    )
    if "not watched" in done.stdout:
        pytest.skip("the kernel does not let threads watch themselves here")
    assert done.stdout == ""


@keeps_memory
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at what is mapped")
def test_threads_begun_in_the_loop_find_stacks_and_heaps(run_python) -> None:
    run_python(
        """
import threading
import rtpool
def mapped():
    with open("/proc/self/maps") as file:
        return sum(int(line.split("-")[1].split()[0], 16) - int(line.split("-")[0], 16) for line in file)
with rtpool.realtime(pool=rtpool.Pool(), warmup=2, iterations=5) as rt:
    for tick in rt:
        before = mapped()
        if tick.index == 3:
            gate = threading.Event()
            threads = [threading.Thread(target=gate.wait) for _ in range(4)]
            for one in threads: one.start()
            more = mapped() - before
            gate.set()
            for one in threads: one.join()
assert more < 1 << 20, more  # not 8 MiB each, nor a heap of 64
        """
    )


def test_modules_imported_in_the_loop_are_named(run_python, tmp_path) -> None:
    (tmp_path / "late_one.py").write_text("import late_two\n")
    (tmp_path / "late_two.py").write_text("")
    (tmp_path / "early.py").write_text("")
    done = run_python(
        """
import json, sys
import rtpool
with rtpool.realtime(pool=rtpool.Pool(), warmup=4, iterations=5) as rt:
    for tick in rt:
        if tick.warmup:
            import early
            assert rt.report.imported == ()
        if tick.index == 3:
            import late_one
            assert rt.report.imported == ("late_two", "late_one"), rt.report.imported
import colorsys
report = rt.report
assert report.imported == ("late_two", "late_one"), report.imported
assert json.loads(report.to_json())["imported"] == ["late_two", "late_one"]
assert "late_two, late_one: import what the loop needs before the section" in str(report)
with rtpool.realtime(pool=rtpool.Pool(), iterations=5) as rt:
    for tick in rt:
        pass
assert rt.report.imported == () and "imported" not in str(rt.report)
""",
        PYTHONPATH=str(tmp_path),
    )
    assert done.stderr == ""


FORKED = """
import os, warnings
import numpy as np
import rtpool
warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
blobs = [bytes([i % 251]) * 40 for i in range(60_000)]  # 4 MiB, nothing of which a collection looks at
table = np.zeros(1 << 20)
table[:] = 1
names = {i: str(i) for i in range(50_000)}  # libc's heap
pool = rtpool.Pool(name="long-lived")
with rtpool.handler(pool):
    kept = np.ones(1 << 20)
def write_everywhere():
    for one in blobs:
        pass  # counts references
    table[:] = 2
    kept[:] = 2
    for key in names:
        names[key] = key
def compute(n):
    return sum(i * i for i in range(n))  # CPython rewrites its code when it has been called some times
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.close(go[1])
    os.read(go[0], 1)
    same = table[0] == 1 and kept[-1] == 1 and names[7] == "7" and blobs[-1] == bytes([59_999 % 251]) * 40
    os._exit(0 if same else 1)
if {gone}:
    os.close(go[1])
    assert os.waitpid(child, 0)[1] == 0
with rtpool.realtime(pool=rtpool.Pool(), warmup=3, iterations=12, gc="keep") as rt:
    for tick in rt:
        compute(10)
        if tick.index == 2:
            write_everywhere()
if not {gone}:
    os.close(go[1])
    assert os.waitpid(child, 0)[1] == 0
assert rt.report.environment.watch != "exact" or rt.report.minor_faults == 0, rt.report
print(rt.report.minor_faults)
"""


@pytest.mark.parametrize("gone", [False, True], ids=["child alive", "child gone"])
def test_what_a_fork_has_made_common_is_the_processes_own_again(run_python, gone: bool) -> None:
    """A loop writes to all it has: the kernel made every page of it read-only when the process forked."""
    assert run_python(FORKED.replace("{gone}", str(gone))).stdout == "0\n"


def test_a_fork_between_two_sections_and_in_the_warm_up(run_python) -> None:
    run_python(
        """
import os, warnings
import rtpool
warnings.simplefilter("ignore")
blobs = [bytes([i % 251]) * 40 for i in range(30_000)]
pool = rtpool.Pool()
def section(fork_at):
    with rtpool.realtime(pool=pool, warmup=4, iterations=4, gc="keep") as rt:
        for tick in rt:
            if tick.index == fork_at:
                if (child := os.fork()) == 0:
                    os._exit(0)
                os.waitpid(child, 0)
            if tick.index == 2:
                for one in blobs:
                    pass
    return rt.report
for fork_at in (None, -4, -1, None):
    report = section(fork_at)
    assert report.minor_faults == 0, (fork_at, report)
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""
    )
