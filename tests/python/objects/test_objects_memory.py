"""What loops of Python's objects hold: never more arenas than were needed at once, and nothing else beside them."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from c_modules import build_module
from object_work import LOOPS, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arena_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module that looks at arenas."""
    folder = tmp_path_factory.mktemp("arena_log")
    build_module(Path(__file__).parent / "arena_log.c", folder, "-D_GNU_SOURCE")
    return folder


# Python goes on with the arena that it has begun last, so that in each round of a loop another one is the last, of
# which it needs a part. By itself it has that one anew, with nothing written. Kept ones have been written, each of
# them in the rounds in which it was not the last, whatever the order in which they are handed out; and to take a part
# of one away would be page faults in every round. So what is held is the most that was needed, in whole arenas: what
# Python has, and what it has not written of its own.
#
# Looked at is nameless memory, where arenas and all that the pool has of its own lie. Of files as many pages are mapped
# as the kernel likes, 16 around the one that is needed or more; and what is in libc's heap, lists and tables, ends
# higher or lower from one process to the next.
PEAK = """
import arena_log
arena_log.begin()  # before there are many
import json
import sys
import rtpool
pool = rtpool.activate(malloc="tune", objects=sys.argv[1])
looks = []
def look():
    now, unasked = arena_log.nameless()  # exact, where VmHWM lags behind by what each processor has not told yet
    stats = pool.stats()
    held = stats.object_bytes + stats.object_kept_bytes
    assert held <= stats.object_peak_bytes, stats  # what is kept was needed once beside what is in use
    looks.append((now, *arena_log.look(), held, unasked))
def told():
    print(json.dumps(looks), flush=True)
"""


class Look(NamedTuple):
    """At one time; bytes."""

    resident: int  # of nameless memory
    arenas: int  # of Python's own, in use
    most: int  # of these at once, until then
    written: int  # of these
    held: int  # by the pool, of arenas in use and kept
    unasked: int  # in huge pages of memory that asked for none: what else of the resident lies in them is the kernel's


def looks(code: str, mode: str, arena_log: Path) -> list[Look]:
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(arena_log)}
    command = [sys.executable, "-c", PEAK + code + "\ntold()", mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [Look(*one) for one in json.loads(done.stdout)]


def assert_no_more(code: str, arena_log: Path) -> None:
    own, pool = (looks(code, mode, arena_log) for mode in ("keep", "pool"))
    most = own[-1].most
    assert all(look.arenas + look.held <= most for look in pool), (own, pool)
    assert max(look.held for look in pool) >= 1 << 20, "arenas come from the pool"
    peak = max(own)
    unwritten = most - peak.written
    # What the pool knows of each page; its records, and libc's heap of a thread of its own, begin a page or two each.
    tables = max(pool).resident // 256 + 4 * mmap.PAGESIZE
    unasked = max(pool).unasked
    print(f"{unwritten=} more={max(pool).resident - peak.resident} {tables=} {unasked=}")
    assert max(pool).resident <= peak.resident + unwritten + tables + unasked, (peak, unwritten, max(pool))


@served
@pytest.mark.parametrize("name", ["dicts", "tolist", "strings", "messages"])
def test_a_loop_holds_no_more_than_with_pythons_own_arenas(name: str, arena_log: Path) -> None:
    """As many arenas as it had at most, each as large as what Python has written of it."""
    assert_no_more(
        LOOPS
        + f"""
work["strings"] = lambda: [str(x) for x in range(100_000)]
np.ones(50_000)
for _ in range(12):
    made = work[{name!r}]()
    look()
    del made
""",
        arena_log,
    )


@served
def test_objects_that_come_and_go_in_waves_hold_no_more_than_with_pythons_own_arenas(arena_log: Path) -> None:
    """Arrays get the memory that objects had, and the other way round."""
    assert_no_more(
        """
import numpy as np
np.ones(50_000)
for _ in range(3):
    objects = [{"i": i, "v": (i, float(i))} for i in range(300_000)]
    look()
    del objects
    array = np.ones(12 << 20)
    look()
    del array
""",
        arena_log,
    )


@served
def test_objects_of_threads_hold_no_more_than_was_needed_at_once(arena_log: Path) -> None:
    """Each makes its own, all have them at once, and others drop them: how their objects mix is another each time."""
    found = looks(
        """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
np.ones(50_000)
executor = ThreadPoolExecutor(4)
all_here = threading.Barrier(4)
def churn(count):
    made = [{"i": i, "v": (i, float(i))} for i in range(count)]
    all_here.wait()
    return made
list(executor.map(churn, [10] * 4))
for _ in range(6):
    made = list(executor.map(churn, [20_000] * 4))
    look()
    executor.submit(made.clear).result()
    look()
""",
        "pool",
        arena_log,
    )
    assert len(found) == 12 and found[0].held > 16 << 20


@served
@pytest.mark.parametrize("name", ["dicts", "tolist", "strings", "messages"])
def test_a_section_holds_what_it_needed_at_once_and_three_arenas_more(run_python, name: str) -> None:
    """Two in which Python has room, one to spare: counted in each iteration, those in use and those kept."""
    done = run_python(
        LOOPS
        + f"""
step = work[{name!r}]
pool = rtpool.Pool()
with rtpool.realtime(0.05, pool=pool, warmup=8, iterations=12) as rt:
    for tick in rt:
        made = step()
        now = pool.stats()
        if tick.index < 0:
            most = now.object_peak_bytes  # what is made ready counts as well, once it is
        held = now.object_bytes + now.object_kept_bytes
        del made
after = pool.stats()
print(most, held, after.object_bytes + after.object_kept_bytes, rt.report.misses, rt.report.objects.size)
pool.check()
"""
    )
    most, during, after, misses, size = map(int, done.stdout.split())
    assert misses == 0 and during == after <= most + 3 * size, done.stdout


@served
def test_sections_one_after_the_other_use_what_the_one_before_left(run_python) -> None:
    """Small and large ones in turns over one pool: room is made once, not once a section.

    Python needs an arena more or less from one section to the next, by what the one before has left in which arena. So
    what is held is compared with the most that any of them had at once, exactly counted: one is to spare, and two are
    for arenas of Python's own that went back to where they came from.
    """
    done = run_python(
        """
import rtpool
pool = rtpool.Pool()
most = 0
for count in (10_000, 60_000, 20_000, 60_000, 1_000, 60_000, 30_000, 60_000, 60_000, 60_000):
    with rtpool.realtime(pool=pool, iterations=3, warmup=4) as rt:
        for tick in rt:
            made = [{"i": i, "v": (i, float(i))} for i in range(count)]
            if tick.index < -1:
                most = max(most, pool.stats().object_peak_bytes)
            del made
    now = pool.stats()
    print(now.object_bytes + now.object_kept_bytes, most, rt.report.objects.size, rt.report.misses)
pool.check()
"""
    )
    for line in done.stdout.splitlines():
        held, most, size, misses = map(int, line.split())
        assert misses == 0 and held <= most + 3 * size, done.stdout


@served
def test_an_arena_that_python_keeps_of_the_room_made_for_it_is_one_less_to_make_ready(run_python) -> None:
    """CPython gives all arenas back that run empty but for one: whose that was is no matter."""
    done = run_python(
        """
import rtpool
from rtpool import _core
from rtpool._pool.plan import Learning
pool = rtpool.Pool()
assert _core.enter_objects(pool)
learning = Learning(pool)
learning.__enter__()
made = [bytes(400) for _ in range(30_000)]
del made
_core.make_object_room()
before = pool.stats()
plan = learning.finish()
held = learning.arenas_held()
learning.forget()
first = before.object_count - held  # in use when learning began
print(plan.objects.most_alive + first, before.object_peak_bytes // plan.objects.size, held >= 0, learning.arenas_held())
"""
    )
    at_once, peak, sensible, forgotten = done.stdout.split()
    assert at_once == peak and sensible == "True" and forgotten == "0", done.stdout
