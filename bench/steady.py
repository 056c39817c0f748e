"""Six loops at 100 Hz, watched from outside: does any thread of the process still fault or ask the kernel for memory?

    python bench/steady.py                                   60 s of each loop for every contestant, 27 minutes in all
    python bench/steady.py --seconds 5 --only rtpool --dry   counters only, a minute
    python bench/steady.py --loops lists --keep              one loop; the others' figures stay as the results have them
    python bench/steady.py --rounds 6 --seconds 10           contestants in turns, six processes each: to compare times
                                                             (45 minutes; with --loops LOOP --keep 8 minutes a loop)

The loops (bench/steady_loops.py) are programs over Python's objects, pandas, OpenCV, SciPy, filterpy and threads. Each
contestant is a process of its own, which warms up and then says so; from then on the kernel counts for --seconds what
all of its threads do: mmap, munmap, brk, mremap, madvise (perf's tracepoints, or strace), and page faults
(/proc/PID/stat). All contestants use the same timer, the same recorder and the same rule for garbage collection. Times
are of the loop's body; what does not fit into 10 ms overruns, and the periods left out are counted.
A machine that others use as well is faster in one minute than in the next, by a fifth on a small VM: without --rounds
the times of two contestants, a minute apart, differ by that much whoever they are. With it, counts are the sums of all
rounds, percentiles the medians.

Results go to bench/results/steady.json and steady.txt. Exits with 1 if rtpool's loops make a memory call or fault.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import contestants
from steady_loops import LOOPS, NEEDS

from rtpool._pool.objects import KEEP_VALUE, KEEP_VARIABLE
from rtpool._replay import watch as watching
from rtpool.cli import _machine

HERE = Path(__file__).resolve().parent
PERIOD = 0.01
# Seconds from the first measured iteration until a process is watched.
SETTLE = 1.0
TITLES = {
    "python": "Python as it is",
    "tcmalloc": "tcmalloc by LD_PRELOAD",
    "tuned": "PYTHONMALLOC=malloc, glibc tuned",
    "rtpool": 'activate(malloc="tune") and realtime("100 Hz")',
}


def environments() -> dict[str, dict[str, str] | str]:
    """Each contestant's environment, or why it cannot take part."""
    known = {one.name: one for one in contestants.everyone()}
    tcmalloc = known["tcmalloc"]
    return {
        "python": {},
        "tcmalloc": tcmalloc.missing or tcmalloc.environment,
        "tuned": {"PYTHONMALLOC": "malloc", **known["tuned"].environment},
        # As `python -m rtpool run` starts a free-threaded Python.
        "rtpool": {KEEP_VARIABLE: KEEP_VALUE} if sysconfig.get_config_var("Py_GIL_DISABLED") else {},
    }


def missing(loop: str) -> str:
    """Why a loop cannot run here, or nothing."""
    lacks = [name for name in NEEDS.get(loop, ()) if importlib.util.find_spec(name) is None]
    return f"{', '.join(lacks)} not installed" if lacks else ""


def faults_of(pid: int) -> int:
    """Page faults of all threads of a process, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


def watch(
    loop: str, contestant: str, environment: dict[str, str], *, seconds: float, warmup: int, by: str
) -> dict[str, Any]:
    """Run one contestant's loop and count what its process does."""
    lasts = seconds + SETTLE + 2.0
    command = [sys.executable, str(HERE / "steady_loops.py"), loop, contestant, str(PERIOD), str(lasts), str(warmup)]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ours = ("RTPOOL_", "MALLOC_", "PYTHONMALLOC")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    with subprocess.Popen(
        command, env=variables | one_thread | environment, stdout=subprocess.PIPE, text=True, cwd=HERE
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "warm\n":
            process.kill()
            raise RuntimeError(f"{loop} of {contestant} did not begin")
        time.sleep(SETTLE)
        before = faults_of(process.pid)
        with watching.watch(process.pid, by) as counts:
            time.sleep(seconds)
        faults = faults_of(process.pid) - before
        figures: dict[str, Any] = json.loads(process.stdout.readline())
    return {"calls": counts, "faults": faults, "seconds": seconds, **figures}


def sum_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Several rounds of one contestant as one: counts are summed, percentiles are medians, maxima the largest."""
    one = dict(rounds[-1], rounds=len(rounds))
    for key in ("faults", "seconds", "iterations", "overruns", "skipped"):
        one[key] = sum(each[key] for each in rounds)
    one["calls"] = {name: sum(each["calls"].get(name, 0) for each in rounds) for name in one["calls"]}
    one["peak_kib"] = max(each["peak_kib"] for each in rounds)
    for kind in ("work", "late"):
        one[kind] = {key: statistics.median(each[kind][key] for each in rounds) for key in one[kind]}
        one[kind]["max"] = max(each[kind]["max"] for each in rounds)
    return one


def without_times(one: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on how busy the machine is."""
    return {key: one[key] for key in ("calls", "faults", "seconds", "iterations", "peak_kib", "rounds")}


def rows(results: dict[str, Any]) -> list[str]:
    """The table of one run."""
    machine = results["machine"]
    lines = [
        f"{machine['processor']}, {machine['processors']} processors",
        f"Python {machine['python']}, NumPy {machine['numpy']}, rtpool {machine['rtpool']}",
        f"{PERIOD * 1e3:g} ms; s: seconds for which {results['tracer']} watched the process once it was warm",
        "times in ms; faults and calls (mmap, munmap, brk, mremap, madvise) of all threads; over: of how many",
        "rounds: percentiles are their medians, the maximum is that of all",
        "-: not taken, the machine was busy with other work (--counters)",
        "",
    ]
    head = "".join(f" {name:>7}" for name in ("p50", "p99", "p99.9", "max"))
    lines.append(f"{'':47}{head}  rounds     s    faults   calls        over   MiB")
    for loop, by_name in results["loops"].items():
        lines.append(f"{loop}: {by_name if isinstance(by_name, str) else LOOPS[loop].__doc__}")
        for name, one in {} if isinstance(by_name, str) else by_name.items():
            if isinstance(one, str):
                lines.append(f"  {TITLES[name]:45} {one}")
                continue
            if "work" in one:
                work = " ".join(f"{one['work'][key] * 1e3:7.3f}" for key in ("p50", "p99", "p99.9", "max"))
                over = f"{one['overruns']:,}/{one['iterations']:,}"
            else:
                work, over = " ".join(["      -"] * 4), f"-/{one['iterations']:,}"
            lines.append(
                f"  {TITLES[name]:45} {work} {one.get('rounds', 1):7} {one['seconds']:5g} {one['faults']:9,}"
                f" {sum(one['calls'].values()):7,} {over:>11} {one['peak_kib'] // 1024:5,}"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each process is watched")
    parser.add_argument("--warmup", type=int, default=200, help="iterations of a process before it is watched")
    parser.add_argument("--rounds", type=int, default=1, help="so many processes of each, contestants in turns")
    parser.add_argument("--loops", nargs="*", choices=list(LOOPS), default=list(LOOPS))
    parser.add_argument("--only", nargs="*", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--keep", action="store_true", help="keep the figures of the other loops and contestants")
    parser.add_argument("--counters", action="store_true", help="leave times out: the machine is busy with other work")
    parser.add_argument("--dry", action="store_true", help="write nothing; print the figures as JSON")
    arguments = parser.parse_args()
    by = watching.tracer()
    if not by:
        print("steady: neither perf nor strace can watch a process here", file=sys.stderr)
        return 2
    path = HERE / "results" / "steady.json"
    results: dict[str, Any] = {"loops": {}, "commands": {}}
    if arguments.keep and path.exists():
        results |= json.loads(path.read_text(encoding="utf-8"))
    results["machine"] = _machine.describe()
    results.pop("command", None)
    results["commands"] |= {loop: sys.argv[1:] for loop in arguments.loops}
    clean = True
    for loop in arguments.loops:
        problem = missing(loop)
        kept = results["loops"].get(loop)  # of contestants that are not taken again
        results["loops"][loop] = problem or (dict(kept) if isinstance(kept, dict) else {})
        if problem:
            continue
        contestants_of = {name: how for name, how in environments().items() if name in arguments.only}
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants_of}
        for turn in range(arguments.rounds):
            for name, environment in contestants_of.items():
                if isinstance(environment, str):
                    results["loops"][loop][name] = environment
                    continue
                print(f"{loop}: {TITLES[name]}", *([turn + 1] if turn else []), file=sys.stderr, flush=True)
                options = {"seconds": arguments.seconds, "warmup": arguments.warmup, "by": by}
                taken[name].append(watch(loop, name, environment, **options))
        for name, rounds in taken.items():
            if not rounds:
                continue
            one = sum_up(rounds)
            results["loops"][loop][name] = without_times(one) if arguments.counters else one
            if name == "rtpool":
                clean = clean and not one["faults"] and not any(one["calls"].values())
    results["loops"] = {name: results["loops"][name] for name in LOOPS if name in results["loops"]}
    results["tracer"] = by
    text = "\n".join(rows(results)) + "\n"
    if arguments.dry:
        print(json.dumps(results["loops"], indent=1))
    else:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(text, file=sys.stderr)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
