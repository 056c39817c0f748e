"""NumPy code inside a frozen pool makes no memory call into the kernel: a filter kills the process that does."""

from __future__ import annotations

import mmap
import platform
import sys

import pytest
from libcs import keeps_memory

from rtpool._pool.objects import refusal

# The numbers of Linux's calls that take, give back or change memory.
NUMBERS = {
    "x86_64": dict(mmap=9, mprotect=10, munmap=11, brk=12, mremap=25, madvise=28, mlock=149, munlock=150),
    "aarch64": dict(brk=214, munmap=215, mremap=216, mmap=222, mprotect=226, mlock=228, munlock=229, madvise=233),
}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in NUMBERS,
    reason="the filter knows the call numbers of Linux on x86-64 and 64-bit Arm",
)

FILTER = (
    f"calls = {NUMBERS.get(platform.machine(), {})}"
    + """
import ctypes, os, struct, sys
import numpy as np
import rtpool

def end(*figures):
    '''Ends at once: an interpreter that winds up gives memory back.'''
    os.write(1, " ".join(map(str, figures)).encode())
    os._exit(0)

def forbid_memory_calls():
    '''Lets the kernel kill this process at every call that takes, gives back or changes memory.

    NumPy's scratch does not come from the pool: it gets some room first, in libc's heap, where without a GIL nothing of
    Python's has ever been.
    '''
    rtpool._core.tune_malloc()
    rtpool._core.touch_malloc(1 << 20)
    program = [(0x20, 0, 0, 0)]                                       # load the number of the call
    program += [(0x15, len(calls) - i, 0, number) for i, number in enumerate(calls.values())]
    program += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]   # allow; kill the process
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    text = ctypes.create_string_buffer(code)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    held = Program(len(program), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0                            # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.byref(held), 0, 0) != 0:              # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        end("no seccomp here")
"""
)

LOOP = """
rng = np.random.default_rng(1)
image = rng.integers(0, 255, (480, 640, 3), np.uint8)
def work():
    a = image.astype(np.float64)
    a = a / 255.0
    grey = a[..., 0] * 0.299 + a[..., 1] * 0.587 + a[..., 2] * 0.114
    blur = (grey[:-2, :-2] + grey[1:-1, 1:-1] + grey[2:, 2:]) / 3
    mask = blur > 0.5
    total = np.zeros(1000) + np.arange(1000.0)
    kept.append(np.concatenate([total, total]))
    if len(kept) > 5:
        kept.pop(0)
    return int(mask.sum()) + float(total.sum())
kept = []
"""


def test_the_filter_kills(run_python) -> None:
    done = run_python(
        FILTER
        + """
forbid_memory_calls()
sys.stdout.flush()
kept = np.ones(1 << 26)   # NumPy's own handler: mmap
raise SystemExit(0)
""",
        status=-31,
    )
    assert "no seccomp" not in done.stdout


@keeps_memory
@pytest.mark.parametrize("on_miss", ["fallback", "raise"])
def test_no_kernel_call_while_frozen(run_python, on_miss: str) -> None:
    done = run_python(
        FILTER
        + LOOP
        + f"""
import gc
pool = rtpool.activate(rtpool.Pool("64 MiB", name="frozen"), objects="pool")
with rtpool.handler(pool):
    for _ in range(10):
        expected = work()
    gc.freeze()
    gc.disable()
    pool.freeze(on_miss={on_miss!r})
    before = pool.stats()
    forbid_memory_calls()
    for _ in range(100):
        got = work()
    after = pool.stats()
assert got == expected
steady = after - before
end(steady.misses, steady.kernel_calls, steady.growths, steady.fallbacks, steady.failures, steady.hits > 1000)
""",
    )
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel or container refuses seccomp filters")
    assert done.stdout.split() == ["0", "0", "0", "0", "0", "True"]


@keeps_memory
def test_no_kernel_call_in_a_loop_that_is_not_frozen(run_python) -> None:
    """Freezing forbids growth; a loop that repeats its sizes does without the kernel anyway."""
    done = run_python(
        FILTER
        + LOOP
        + """
import gc
rtpool.activate(objects="pool")
with rtpool.handler() as pool:
    for _ in range(10):
        work()
    gc.freeze()
    gc.disable()
    forbid_memory_calls()
    for _ in range(100):
        work()
end("done")
"""
    )
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel or container refuses seccomp filters")
    assert done.stdout == "done"


@keeps_memory
def test_no_kernel_call_inside_the_loop_of_a_section(run_python) -> None:
    """From the body of the first iteration to that of the last one, waiting and zeroing ahead included."""
    done = run_python(
        FILTER
        + LOOP
        + """
pool = rtpool.Pool()
with rtpool.realtime(0.002, pool=pool, warmup=20) as rt:
    for tick in rt:
        if tick.index == 0:
            before = pool.stats()
            forbid_memory_calls()
        work()
        if tick.index == 200:
            steady = pool.stats() - before
            end(steady.misses, steady.kernel_calls, steady.growths, steady.fallbacks, steady.hits > 1000)
""",
    )
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel or container refuses seccomp filters")
    assert done.stdout.split() == ["0", "0", "0", "0", "True"]


@keeps_memory
@pytest.mark.skipif(refusal() is not None, reason=f"arenas are not asked for: {refusal()}")
@pytest.mark.parametrize("step", [
    "[{'i': i, 'v': (i, float(i))} for i in range(20_000)]",
    "numbers.tolist()",
    "','.join(str(x) for x in range(100_000))",
])  # fmt: skip
def test_no_kernel_call_of_a_loop_of_objects(run_python, step: str) -> None:
    """Python's own arenas are kept by the pool; nobody has made room by hand."""
    done = run_python(
        FILTER
        + f"""
numbers = np.arange(200_000)
with rtpool.realtime(0.05, pool=rtpool.Pool(), warmup=8) as rt:
    for tick in rt:
        if tick.index == 0:
            forbid_memory_calls()
        {step}
        if tick.index == 20:
            end("done")
""",
    )
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel or container refuses seccomp filters")
    assert done.stdout == "done"


@keeps_memory
def test_a_prepared_program_does_not_fault_from_its_first_iteration_on(run_python, tmp_path) -> None:
    """In a process that has run none of its code before, against NumPy's default handler in another one."""
    plan = tmp_path / "plan.json"
    loop = "import sys\nimport numpy as np, rtpool\n" + LOOP
    run_python(
        loop
        + f"""
pool = rtpool.Pool()
with rtpool.handler(pool), pool.learn() as plan:
    for _ in range(20):
        work()
plan.save({str(plan)!r})
"""
    )
    prepared = f"""
rt = rtpool.realtime(pool=rtpool.Pool(), plan=rtpool.Plan.load({str(plan)!r}), iterations=50)
with rt:
    for _ in rt:
        work()
print(rt.report.minor_faults, rt.report.major_faults, rt.report.misses, rt.report.kernel_calls)
"""
    assert run_python(loop + prepared).stdout.split() == ["0"] * 4
    unprepared = """
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(run_python(loop + unprepared).stdout) > 1000 // (mmap.PAGESIZE // 4096)


@keeps_memory
def test_no_page_faults_in_a_loop(run_python) -> None:
    done = run_python(
        LOOP.replace("rng =", "import numpy as np, resource, rtpool\nrng =", 1)
        + """
import gc
rtpool.activate(objects="pool")
with rtpool.handler() as pool:
    for _ in range(10):
        work()
    gc.disable()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    )
    assert int(done.stdout) <= 5
