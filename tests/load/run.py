"""Mixed work for an hour: activation, real-time sections, threads, forks, shared pools, trims, nested handlers, copies,
spawned children, an executor's idle workers, and, where Dask is installed, a cluster whose workers are killed.

    python tests/load/run.py                    # an hour, writes tests/load/results/load.json
    python tests/load/run.py --minutes 2        # a look

Two threads make and drop verified arrays of all sizes without a pause, while the main thread runs the activities of
`work.py` in random order, another process answers over a shared pool, and children are forked and killed. Every array
holds a pattern that is checked before it goes. A minute (or a sixtieth of the run) ends with a checkpoint: all work
rests, every array is dropped, the pools are trimmed, libc's malloc too.

What must hold, decided before the run:

* At every checkpoint, exactly: no block is alive in any pool, nothing in flight, no misuse, no failure, `check()` finds
  nothing, and no array was damaged.
* Growth is zero. The first sixth of the checkpoints is warm-up. Of the rest, the median of the last third is compared
  with that of the first: private resident bytes may differ by at most 1 MiB a process, the memory the pools
  hold after trimming by at most one frame (2 MiB) each, open files and threads not at all, mappings by 8 (libc maps
  arenas of its own) and Python's blocks by 1,000 of some 130,000 (its caches). Medians, as single samples scatter by
  what libc and Python keep. In an hour some 2,000 rounds lie between the two thirds: 1 MiB is a leak of 500 bytes a
  round, or of a page in every eighth. Smaller leaks inside the pools are found by the exact counts.

Exit code 0: all of it held; 1: not.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import json
import os
import platform
import random
import statistics
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from children import resident_bytes
from verified import Damaged
from work import ACTIVITIES, Work

import rtpool

RESULTS = Path(__file__).resolve().parent / "results"
STUCK_AFTER = 600.0
MIB = 1 << 20
M_ARENA_MAX = -8
ALLOWED_GROWTH: dict[str, float] = {
    "resident_bytes": MIB,
    "echo_resident_bytes": MIB,
    "executor_resident_bytes": 2 * MIB,  # two processes
    "active_capacity_bytes": 2 * MIB,
    "second_capacity_bytes": 2 * MIB,
    "shared_resident_bytes": 2 * MIB,
    "open_files": 0,
    "threads": 0,
    "mappings": 8,  # libc maps and unmaps arenas of its own
    "python_blocks": 1000,  # of some 200,000: caches of the interpreter
}


def sample(work: Work, libc: ctypes.CDLL, seconds: float, rounds: int) -> dict[str, float]:
    """Bring everything to rest, look at what must hold exactly, and measure what must not grow."""
    work.rest()
    echo_resident = work.echo.resident()  # it has dropped its last answer when it says this
    if not work.shared.recover():
        raise Damaged("the shared pool is being recovered by somebody else while nobody works")
    for pool in (work.active, work.second, work.shared):
        pool.trim()
        pool.check()
        stats = pool.stats()
        alive = stats.current_count + stats.fallback_count + getattr(stats, "in_flight_count", 0)
        if alive or stats.misuses or stats.failures:
            raise Damaged(f"{pool!r} is not empty at a checkpoint, or had misuses or failures:\n{stats}")
    gc.collect()
    libc.malloc_trim(0)
    return {
        "seconds": round(seconds, 1),
        "rounds": rounds,
        "resident_bytes": resident_bytes(),
        "echo_resident_bytes": echo_resident,
        "executor_resident_bytes": work.executor.resident(),
        "active_capacity_bytes": work.active.stats().capacity_bytes,
        "second_capacity_bytes": work.second.stats().capacity_bytes,
        "shared_resident_bytes": work.shared.stats().resident_bytes,
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "mappings": sum(1 for _ in open("/proc/self/maps", encoding="utf-8")),
        "python_blocks": sys.getallocatedblocks(),
    }


def growths(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of the last third less that of the first, after the warm-up."""
    steady = samples[len(samples) // 6 :]
    third = max(1, len(steady) // 3)
    return {
        name: statistics.median(one[name] for one in steady[-third:])
        - statistics.median(one[name] for one in steady[:third])
        for name in ALLOWED_GROWTH
    }


def load(minutes: float, seed: int) -> dict[str, Any]:
    libc = ctypes.CDLL(None)
    # One arena: malloc_trim gives back the end of the first one only, and the others' would count as growth.
    if libc.mallopt(M_ARENA_MAX, 1) != 1:
        raise SystemExit("this libc does not take mallopt(M_ARENA_MAX)")
    rng = random.Random(seed)
    work = Work(seed)
    samples: list[dict[str, float]] = []
    interval = max(2.0, minutes)
    start = time.monotonic()
    rounds = 0
    error: str | None = None
    try:
        work.resume()
        while (now := time.monotonic() - start) < minutes * 60:
            faulthandler.dump_traceback_later(STUCK_AFTER, exit=True)
            for name in rng.sample(ACTIVITIES, len(ACTIVITIES)):
                getattr(work, name)()
            rounds += 1
            if now >= (len(samples) + 1) * interval:
                samples.append(sample(work, libc, now, rounds))
                print(json.dumps(samples[-1]), flush=True)
                work.resume()
        samples.append(sample(work, libc, time.monotonic() - start, rounds))
        work.end()
    except Exception:
        error = traceback.format_exc()
        print(error, file=sys.stderr, flush=True)
    finally:
        faulthandler.cancel_dump_traceback_later()
    work.counts["arrays: churn"] = sum(churn.made for churn in work.churns)
    growth = growths(samples) if len(samples) >= 4 else {}
    if not growth and error is None:
        error = "too short to see growth: no four checkpoints"
    over = [name for name, most in ALLOWED_GROWTH.items() if growth.get(name, 0) > most]
    return {
        "verdict": "failed" if error or over else "passed",
        "error": error,
        "grew": over,
        "growth": growth,
        "allowed_growth": ALLOWED_GROWTH,
        "seconds": round(time.monotonic() - start, 1),
        "rounds": rounds,
        "arrays": sum(count for name, count in work.counts.items() if name.startswith("arrays: ")),
        "counts": dict(sorted(work.counts.items())),
        "samples": samples,
    }


def machine() -> dict[str, Any]:
    return {
        "rtpool": rtpool.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "processors": os.cpu_count(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="default: results/load.json from half an hour on, else none")
    arguments = parser.parse_args()
    output = arguments.output or (RESULTS / "load.json" if arguments.minutes >= 30 else None)
    command = f"python tests/load/run.py --minutes {arguments.minutes:g} --seed {arguments.seed}"
    result = {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
    result |= load(arguments.minutes, arguments.seed)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1))
    return 0 if result["verdict"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
