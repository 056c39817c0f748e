"""Python's own objects: their arenas come from the pool, are kept, go back where they came from, outlive everything."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import sysconfig
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import rtpool
from rtpool import _core
from rtpool._pool.objects import refusal

served = pytest.mark.skipif(refusal() is not None, reason=f"arenas are not asked for: {refusal()}")
gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
pymalloc = pytest.mark.skipif(not gil, reason="free-threaded Python has one allocator, and no arenas")
free_threaded = pytest.mark.skipif(gil, reason="free-threaded builds only")

# What a program does with objects: each of these made Python take and give arenas back in every iteration.
LOOPS = """
import json
import numpy as np
import resource
import rtpool

numbers = np.arange(200_000)
message = json.dumps({"points": [[i, float(i)] for i in range(640)]})
work = {
    "dicts": lambda: [{"i": i, "v": (i, float(i))} for i in range(20_000)],
    "tolist": numbers.tolist,
    "strings": lambda: ",".join(str(x) for x in range(100_000)),
    "messages": lambda: [json.loads(message) for _ in range(20)],
}

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""


def churn(count: int = 20_000) -> list[dict[str, object]]:
    return [{"i": i, "v": (i, float(i))} for i in range(count)]


# Loops without faults.


@served
def test_sections_do_not_fault(run_python) -> None:
    done = run_python(
        LOOPS
        + """
for name, step in work.items():
    with rtpool.realtime(0.05, pool=rtpool.Pool(), warmup=6, iterations=20) as rt:
        for _ in rt:
            step()
    print(name, rt.report.minor_faults, rt.report.misses, rt.report.objects.misses, rt.report.objects.served)
"""
    )
    assert done.stdout.split("\n")[:-1] == [
        f"{name} 0 0 0 True" for name in ("dicts", "tolist", "strings", "messages")
    ], done.stdout


@served
def test_activated_programs_do_not_fault(run_python) -> None:
    done = run_python(
        LOOPS
        + """
rtpool.activate(malloc="tune", objects="pool")
for name, step in work.items():
    for _ in range(6):
        step()
    before = faults()
    for _ in range(50):
        step()
    print(name, faults() - before)
"""
    )
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert max(counts.values()) <= 3, counts


@served
def test_sections_inside_activated_programs_in_threads_and_nested(run_python) -> None:
    done = run_python(
        LOOPS
        + """
import threading
rtpool.activate(malloc="tune", objects="pool")

def section(pool, worst, inner=None):
    with rtpool.realtime(0.1, pool=pool, warmup=6, iterations=12) as rt:
        for tick in rt:
            work["dicts"]()
            if inner is not None and tick.index == 5:
                section(inner, worst)
    worst.append(rt.report.objects.misses)

worst = []
section(None, worst)
section(rtpool.Pool(), worst, rtpool.Pool())
threads = [threading.Thread(target=section, args=(rtpool.Pool(), worst)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(worst), rtpool.default_pool().effective.objects)
rtpool.deactivate()
print(rtpool.default_pool().effective.objects)
rtpool.default_pool().check()
"""
    )
    assert done.stdout.split() == ["6", "pool", "keep"]


@served
def test_a_plan_prepares_the_first_iteration_of_another_process(run_python, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    run_python(
        LOOPS
        + f"""
with rtpool.realtime(0.05, pool=rtpool.Pool(), warmup=6, iterations=6) as rt:
    for _ in rt:
        work["dicts"]()
rt.plan.save({str(path)!r})
"""
    )
    plan = rtpool.Plan.load(path)
    assert plan.objects is not None and plan.objects.size >= 256 << 10 and plan.objects.most_alive >= 3
    assert f"{plan.objects.most_alive} arenas of objects" in repr(plan) and "objects" in str(plan)
    done = run_python(
        LOOPS
        + f"""
plan = rtpool.Plan.load({str(path)!r})
with rtpool.realtime(0.05, pool=rtpool.Pool(), plan=plan, iterations=10) as rt:
    for _ in rt:
        work["dicts"]()
print(rt.report.minor_faults, rt.report.misses, rt.report.kernel_calls, rt.report.objects.ready)
"""
    )
    faults, misses, calls, ready = map(int, done.stdout.split())
    assert (misses, calls) == (0, 0) and ready > plan.objects.most_alive
    assert faults <= 64, "the loop's own code and lists; its 20,000 objects alone take 1,000"


# Where arenas come from and go to.


@served
def test_arenas_are_counted_apart_and_go_back() -> None:
    pool = rtpool.Pool(name="objects")
    with rtpool.realtime(pool=pool, iterations=1, warmup=2) as rt:
        assert pool.effective.objects == "pool" and "objects" in str(pool.effective)
        for _ in rt:
            alive = churn(40_000)
        during = pool.stats()
    assert pool.effective.objects == "keep"
    assert during.object_bytes >= 4 << 20 and during.object_count >= 2
    assert during.current_count == 0, "no array came from the pool"
    table = str(during)
    assert "arenas of objects" in table and "requests for arenas" in table
    assert alive[-1]["v"] == (39_999, 39_999.0)
    del alive
    after = pool.stats()
    assert after.object_bytes < during.object_bytes
    assert after.object_kept_bytes > during.object_kept_bytes
    pool.check()


@served
def test_nothing_is_held_before_an_arena_is_asked_for(run_python) -> None:
    done = run_python(
        """
import rtpool
pool = rtpool.activate(rtpool.Pool(), objects="pool")
assert rtpool.activate(pool, objects="pool") == pool      # idempotent
print(pool.stats().capacity_bytes, pool.stats().object_misses, pool.effective.objects)
kept = [bytes(100) for _ in range(100_000)]
print(pool.stats().object_count > 5)
rtpool.deactivate()
rtpool.deactivate()
before = pool.stats()
more = [bytes(100) for _ in range(100_000)]
print((pool.stats() - before).object_misses, pool.effective.objects)
"""
    )
    lines = done.stdout.splitlines()
    assert lines[0].split()[2] == "pool" and int(lines[0].split()[1]) <= 1
    assert lines[1:] == ["True", "0 keep"]


@served
def test_objects_outlive_deactivation_the_pool_and_a_fork(run_python) -> None:
    done = run_python(
        """
import gc, os, rtpool, threading
import numpy as np
pool = rtpool.Pool(name="short-lived")
with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
    for _ in rt:
        kept = [{"i": i, "v": (i, float(i))} for i in range(50_000)]
        arrays = np.ones(1 << 22)
where = next(id(one) for one in kept if rtpool._core.in_object_arena(id(one)))
del pool, rt, arrays
gc.collect()
def whole(objects): return all(one["v"] == (i, float(i)) for i, one in enumerate(objects))
assert whole(kept)
assert rtpool._core.in_object_arena(where)
for _ in range(3):
    child = os.fork()
    if child == 0:
        good = whole(kept)
        kept[:] = [{"i": i, "v": (i, float(i))} for i in range(60_000)]
        good = good and whole(kept)
        kept.clear()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
assert whole(kept)
thread = threading.Thread(target=kept.clear)   # freed by another thread
thread.start(); thread.join()
gc.collect()
print("good")
"""
    )
    assert done.stdout == "good\n"


@served
def test_a_dropped_pool_gives_back_what_is_not_objects(run_python) -> None:
    done = run_python(
        """
import gc, rtpool
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
pool = rtpool.Pool("256 MiB")
with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
    for _ in rt:
        kept = [{"i": i} for i in range(50_000)]
assert any(rtpool._core.in_object_arena(id(one)) for one in kept)
before = resident()
del pool, rt
gc.collect()
print((before - resident()) >> 20)
assert kept[-1] == {"i": 49_999}
"""
    )
    assert int(done.stdout) >= 230


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "del kept", "kept[0].things.append(kept)"])
@served
def test_processes_end_as_ever(run_python, end: str) -> None:
    """With objects alive in arenas, threads at work, and things that run late."""
    done = run_python(
        f"""
import atexit, rtpool, threading, time, weakref
class Late:
    def __init__(self): self.things = [{{"i": i}} for i in range(1000)]
    def __del__(self): [{{"i": i}} for i in range(1000)]
pool = rtpool.activate(objects="pool", malloc="tune")
atexit.register(lambda: [str(i) for i in range(10_000)])
kept = [Late() for _ in range(20)]
loop = []
loop.append((loop, Late()))
def busy():
    while True: [{{"i": i}} for i in range(2_000)]
for _ in range(3): threading.Thread(target=busy, daemon=True).start()
time.sleep(0.05)
print("end", flush=True)
{end}
"""
    )
    assert done.stdout == "end\n"


@served
def test_arrays_over_objects_are_not_the_pools() -> None:
    pool = rtpool.Pool()
    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            kept = [bytes(200) for _ in range(50_000)]
            array = np.ones(10)
    inside = next(one for one in reversed(kept) if _core.in_object_arena(id(one)))
    view = np.frombuffer(inside, np.uint8)
    assert rtpool.owner(view) is None and view not in pool
    assert rtpool.owner(array) == pool and array in pool


@served
def test_subinterpreters_get_and_give_arenas(run_python) -> None:
    done = run_python(
        """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import rtpool
pool = rtpool.activate(objects="pool")
before = pool.stats().object_misses
made = [interpreters.create() for _ in range(3)]
for one in made:
    interpreters.run_string(one, "kept = [{'i': i} for i in range(50_000)]; del kept")
print(pool.stats().object_misses - before > 5)
for one in made:
    interpreters.destroy(one)
pool.check()
"""
    )
    assert done.stdout == "True\n"


# Limits and refusals.


@served
def test_at_its_limit_python_serves_itself() -> None:
    pool = rtpool.Pool(limit="8 MiB")
    with rtpool.realtime(0.2, pool=pool, warmup=2, iterations=3) as rt:
        for _ in rt:
            churn(60_000)
    stats = pool.stats()
    assert stats.object_bytes + stats.object_kept_bytes <= 2 << 20
    assert stats.object_fallbacks > 0
    assert rt.report.objects.missing > 0 and "missing" in str(rt.report)
    pool.check()


@served
def test_what_a_frozen_pool_cannot_serve_is_a_miss_and_paid_once(run_python) -> None:
    done = run_python(
        LOOPS
        + """
grown = []
with rtpool.realtime(0.1, pool=rtpool.Pool(), warmup=4, iterations=20) as rt:
    for tick in rt:
        step = [{"i": i, "v": (i, float(i))} for i in range(20_000 if tick.index < 5 else 60_000)]
        del step
        if tick.index == 8:
            settled = faults()
    later = faults() - settled
report = rt.report
print(report.misses > 0, report.misses == report.objects.misses, report.kernel_calls, report.deviations, later)
print(report)
"""
    )
    first, *text = done.stdout.splitlines()
    assert first.startswith("True True 0 {} ")
    assert int(first.split()[-1]) <= 3, "the misses were paid in one iteration"
    assert any(line.startswith("objects") and "misses" in line for line in text)


@pymalloc
@pytest.mark.parametrize("allocator", ["malloc", "malloc_debug"])
def test_allocators_without_arenas_are_named(run_python, allocator: str) -> None:
    done = run_python(
        """
import rtpool, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    pool = rtpool.activate(objects="pool")
print([str(one.message) for one in told])
with rtpool.realtime(warmup=2, iterations=3, strict=True) as rt:
    for _ in rt:
        [{"i": i} for i in range(10_000)]
print(rt.report.objects)
print(pool.effective.objects, pool.stats().object_misses)
""",
        PYTHONMALLOC=allocator,
    )
    warned, reported, effective = done.stdout.splitlines()
    assert f"Python's allocator is '{allocator}'" in warned and "changes nothing" in warned
    assert reported == f"not served: Python's allocator is '{allocator}' (PYTHONMALLOC), which has no arenas"
    assert effective == "keep 0"


@pymalloc
@pytest.mark.parametrize("allocator", ["pymalloc", "pymalloc_debug", "debug"])
def test_debug_hooks_over_arenas_change_nothing(run_python, allocator: str) -> None:
    done = run_python(
        """
import rtpool
with rtpool.realtime(0.1, warmup=4, iterations=5) as rt:
    for _ in rt:
        [{"i": i} for i in range(10_000)]
print(rt.report.objects.served, rt.report.objects.misses, rt.pool.stats().object_misses > 0)
""",
        PYTHONMALLOC=allocator,
    )
    assert done.stdout == "True 0 True\n"


@free_threaded
def test_free_threaded_builds_say_so(run_python) -> None:
    code = """
import rtpool, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    rtpool.activate(objects="pool")
rtpool.deactivate()
with rtpool.realtime(warmup=1, iterations=1) as rt:
    for _ in rt:
        pass
assert not rt.report.objects.served
print(len(told), rt.report.objects)
"""
    told = run_python(code, MIMALLOC_PURGE_DELAY="10").stdout
    assert told.startswith("1 not served: free-threaded") and "start it with MIMALLOC_PURGE_DELAY=-1" in told
    told = run_python(code, MIMALLOC_PURGE_DELAY="-1").stdout
    assert told.startswith("0 not served: free-threaded") and "keeps the memory of its objects by itself" in told


@free_threaded
def test_free_threaded_loops_do_not_fault_when_run_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        LOOPS
        + """
for name in ("dicts", "tolist"):
    for _ in range(10):
        work[name]()
    before = faults()
    for _ in range(20):
        work[name]()
    print(faults() - before)
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != "MIMALLOC_PURGE_DELAY"}
    command = [sys.executable, "-m", "rtpool", "run", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert max(map(int, done.stdout.split())) <= 20, done.stdout
    assert "keeps the memory of its objects by itself" in done.stderr


@served
def test_tracing_python_allocations_goes_on() -> None:
    tracemalloc.start()
    try:
        with rtpool.realtime(pool=rtpool.Pool(), warmup=2, iterations=3) as rt:
            for _ in rt:
                churn(5_000)
        assert rt.report.objects.served
        assert tracemalloc.get_traced_memory()[1] > 100_000
    finally:
        tracemalloc.stop()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="objects"):
        rtpool.realtime(objects="arenas")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objects"):
        rtpool.activate(objects="arenas")  # type: ignore[arg-type]
    shared = rtpool.SharedPool.create("4 MiB")
    with pytest.raises(TypeError, match="SharedPool"):
        rtpool.activate(shared, objects="pool")  # type: ignore[arg-type]
    assert rtpool.active_pool() is None
    for function in (_core.enter_objects, _core.leave_objects, _core.activate_objects, _core.serves_objects):
        with pytest.raises(TypeError, match="Pool"):
            function(1)  # type: ignore[arg-type]
    _core.leave_objects(rtpool.Pool())  # never entered
    assert _core.end_object_watch(-1) == (0, 0, 0)


def test_keep_leaves_python_alone() -> None:
    pool = rtpool.Pool()
    with rtpool.realtime(pool=pool, warmup=2, iterations=2, objects="keep") as rt:
        for _ in rt:
            churn()
    assert not rt.report.objects.served and "objects='keep'" in str(rt.report)
    assert pool.stats().object_misses == 0 and rt.plan is not None and rt.plan.objects is None


@served
def test_the_command_line_serves_objects(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import numpy\nkept = [{'i': i} for i in range(50_000)]\n")
    for options, expected in (([], "kept ones"), (["--objects", "keep"], None)):
        done = subprocess.run(
            [sys.executable, "-m", "rtpool", "run", *options, script], capture_output=True, text=True, check=True
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith("  objects")]
        assert [expected in line for line in lines] == ([True] if expected else []), done.stderr


@served
def test_threads_make_and_drop_each_others_objects() -> None:
    pool = rtpool.Pool()
    handed: list[list[dict[str, object]]] = []

    def work() -> None:
        for _ in range(5):
            handed.append(churn(5_000))
            if len(handed) > 3:
                handed.pop(0)

    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert all(one["v"] == (i, float(i)) for some in handed for i, one in enumerate(some))
    handed.clear()
    gc.collect()
    pool.check()


@served
def test_resident_memory_is_at_most_the_peak() -> None:
    """Arrays get the memory that objects had, and the other way round."""
    code = """
import sys
import numpy as np
import rtpool
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
np.arange(3).sum()
rtpool.activate(objects=sys.argv[1])
base = peak()
for _ in range(3):
    objects = [{"i": i, "v": (i, float(i))} for i in range(300_000)]
    del objects
    array = np.ones(12 << 20)
    del array
print((peak() - base) // 1024)
"""
    grown = {}
    for mode in ("keep", "pool"):
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
        grown[mode] = int(done.stdout)
    assert grown["pool"] <= grown["keep"] + 4, grown


@served
def test_a_forked_child_goes_on_with_arenas() -> None:
    pool = rtpool.Pool()
    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            kept = churn(5_000)
        child = os.fork()
        if child == 0:
            good = pool.effective.objects == "pool" and kept[-1]["i"] == 4_999
            churn()
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0


@served
def test_what_python_has_not_touched_of_its_own_arenas_is_touched_before_the_loop(run_python) -> None:
    """Parts of an arena that objects of one class have come to fill only half, while others of the class lie free."""
    run_python(
        """
        import rtpool
        kept = [[bytes(size) for _ in range(4000)] for size in (40, 100, 200, 330, 440)]
        for objects in kept:
            del objects[::2]  # more than a part's worth of each class is free before the untouched rest
        with rtpool.realtime(warmup=2, iterations=20, pool=rtpool.Pool()) as rt:
            for tick in rt:
                if tick.index >= 0:
                    kept += [[bytes(size) for _ in range(110)] for size in (40, 100, 200, 330, 440)]
        assert rt.report.minor_faults == 0, rt.report
        """
    )
