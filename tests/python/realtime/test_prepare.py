"""What a program does for the first time in its loop costs no page fault: the section has touched it before."""

from __future__ import annotations

import pytest

FIRST_TIMES = {
    "matrix product": ("a = np.ones((400, 400))", "a @ a"),
    "matrix product, single precision": ("a = np.ones((400, 400), np.float32)", "a @ a"),
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
    "random numbers": ("rng = np.random.default_rng(1)", "rng.normal(size=1000)"),
}

# Python's own objects and frames have tests of their own.
PROGRAM = """
import numpy as np, rtpool
{setup}
pool = rtpool.Pool("32 MiB")
with pool.learn() as plan:
    pass
with rtpool.realtime(pool=pool, {options}) as rt:
    for tick in rt:
        if tick.index >= {at}:
            {work}
if rt.report.environment.watch != "exact":
    print("not watched")
for origin in rt.report.fault_origins:
    if origin.kind != "objects":
        print(origin)
"""


@pytest.mark.parametrize("name", FIRST_TIMES)
@pytest.mark.parametrize(("options", "at"), [("warmup=3, iterations=6", 3), ("plan=plan, iterations=3", 0)])
def test_the_first_time_does_not_fault(run_python, name: str, options: str, at: int) -> None:
    """In the fourth iteration of a loop that is warm, and in the first one of a section that has only a plan."""
    setup, work = FIRST_TIMES[name]
    done = run_python(PROGRAM.format(setup=setup, work=work, options=options, at=at))
    if "not watched" in done.stdout:
        pytest.skip("the kernel does not let threads watch themselves here")
    assert done.stdout == ""


def test_a_thread_prepares_once_and_a_child_again(run_python) -> None:
    done = run_python(
        """
import os, threading
import rtpool._realtime.prepare as prepare
done = []
prepare._multiply = lambda: done.append(threading.get_ident())
prepare._has_blas = lambda machine: True
prepare.prepare_thread()
prepare.prepare_thread()
assert len(done) == 1
thread = threading.Thread(target=prepare.prepare_thread)
thread.start()
thread.join()
assert len(done) == 2
if os.fork() == 0:
    prepare.prepare_thread()
    os._exit(len(done) - 3)
assert os.waitpid(-1, 0)[1] == 0
"""
    )
    assert done.stderr == ""


def test_a_thread_with_a_small_stack(run_python) -> None:
    run_python(
        """
import threading, rtpool
threading.stack_size(64 << 10)
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
