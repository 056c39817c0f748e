"""Loops of Python's own objects: no page fault, from the first iteration on with a plan, and no more memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from object_work import LOOPS, free_threaded, served

import rtpool


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert max(map(int, done.stdout.split())) <= 20, done.stdout
    assert "keeps the memory of its objects by itself" in done.stderr


# Python goes on with the arena that it has begun last, so that in each round of a loop another one is the last, of
# which it needs a part. By itself it has that one anew, with nothing written; kept ones have been written, and to
# take a part of one away would be page faults in every round. So what is held is the most that was needed, in whole
# arenas.
ARENA = 1024  # KiB
PEAK = """
import sys
def resident():  # exact, where VmHWM lags behind by what each processor has not told yet
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss"))
most = []
def look():
    most.append(resident())
def told(base):
    print(max(most) - base, flush=True)
    sys._debugmallocstats()
"""


def held(code: str) -> dict[str, tuple[int, int]]:
    """With Python's own arenas and with the pool's: KiB that a program held more, and the most arenas at once."""
    found = {}
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    for mode in ("keep", "pool"):
        command = [sys.executable, "-c", code, mode]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
        arenas = re.search(r"^# arenas highwater mark += +([\d,]+)$", done.stderr, re.MULTILINE)
        assert arenas is not None, done.stderr
        found[mode] = int(done.stdout), int(arenas[1].replace(",", ""))
    return found


def assert_no_more(code: str) -> None:
    found = held(code)
    (own_kib, own_arenas), (pool_kib, pool_arenas) = found["keep"], found["pool"]
    assert pool_arenas <= own_arenas, found
    tables = own_kib // 256 + 64  # what the pool knows of each page, and a step of it
    assert pool_kib < own_kib + ARENA + tables, found


@served
@pytest.mark.parametrize("name", ["dicts", "tolist", "strings", "messages"])
def test_a_loop_holds_no_more_than_with_pythons_own_arenas(name: str) -> None:
    """As many arenas as it had at most, each as large as what Python has written of it."""
    assert_no_more(
        LOOPS
        + PEAK
        + f"""
work["strings"] = lambda: [str(x) for x in range(100_000)]
rtpool.activate(malloc="tune", objects=sys.argv[1])
np.ones(50_000)
base = resident()
for _ in range(12):
    made = work[{name!r}]()
    look()
    del made
told(base)
"""
    )


@served
def test_objects_that_come_and_go_in_waves_hold_no_more_than_with_pythons_own_arenas() -> None:
    """Arrays get the memory that objects had, and the other way round."""
    assert_no_more(
        PEAK
        + """
import numpy as np
import rtpool
rtpool.activate(malloc="tune", objects=sys.argv[1])
np.ones(50_000)
base = resident()
for _ in range(3):
    objects = [{"i": i, "v": (i, float(i))} for i in range(300_000)]
    look()
    del objects
    array = np.ones(12 << 20)
    look()
    del array
told(base)
"""
    )


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
