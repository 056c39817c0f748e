"""Python's own objects: what a pool cannot serve, what Python does not ask for, and what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from libcs import keeps_memory
from object_work import LOOPS, churn, free_threaded, pymalloc, served

import rtpool
from rtpool import _core


@pytest.mark.slow
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


@keeps_memory
@pytest.mark.slow
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


@pytest.mark.slow
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
with rtpool.realtime(warmup=2, iterations=3, malloc="keep", strict=True) as rt:
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


@pytest.mark.slow
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


def test_what_watches_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sanitizer, or Valgrind: it is to see each object where Python puts it."""
    monkeypatch.setattr(_core, "object_arenas_refusal", lambda: "watched")
    monkeypatch.setattr(_core, "enter_objects", lambda pool: False)
    with rtpool.realtime(warmup=1, iterations=1, pool=rtpool.Pool(), malloc="keep", strict=True) as rt:
        for _ in rt:
            churn(1_000)
    assert "not served: a sanitizer or Valgrind watches this process" in str(rt.report)


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
            [sys.executable, "-m", "rtpool", "run", *options, script],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith("  objects")]
        assert [expected in line for line in lines] == ([True] if expected else []), done.stderr
