"""Loops of Python's own objects: no page fault, from the first iteration on with a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from libcs import keeps_memory
from object_work import LOOPS, free_threaded, served

import rtpool


@keeps_memory
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


@keeps_memory
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


@pytest.mark.slow
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


@keeps_memory
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


@keeps_memory
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
