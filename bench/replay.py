"""The twenty programs of the suite `programs` without the programs: their traces, replayed by every allocator.

    python bench/run.py --suite replay       replays bench/traces; needs NumPy and rtpool only
    python bench/replay.py                   records bench/traces anew; needs what the programs need

A trace holds what one program asked NumPy's allocator for, with the whole process activated: two iterations to warm up,
which are not in it, and then so many that some thousand events are there, at most 20. Only sizes, threads, order and
times are kept, no places in the programs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
from contestants import Contestant

HERE = Path(__file__).resolve().parent
TRACES = HERE / "traces"
EVENTS = 4000
MOST_ITERATIONS = 20
TAKING_PART = ("numpy", "jemalloc", "tcmalloc", "mimalloc", "rtpool")


def record_one(name: str, path: str) -> None:
    """Record a program in this process."""
    import rtpool

    rtpool.activate(malloc="keep", objects="keep")
    step = cases.build(f"programs:{name}")
    for _ in range(2):
        step()
    with rtpool.record(stacks="none") as probe:
        step()
    iterations = max(2, min(MOST_ITERATIONS, EVENTS // max(1, probe.report.events)))
    with rtpool.record(path, stacks="none") as recording:
        for _ in recording.iterations(range(iterations)):
            step()
    if not recording.report.complete:
        raise RuntimeError(f"{name}: {recording.report}")


def record() -> int:
    """Record every program, each in a process of its own."""
    TRACES.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in cases.names("programs"):
            name = case.partition(":")[2]
            path = Path(folder) / name
            # In the root folder and with the script's own name: a trace says where it was recorded, and how.
            code = f"import sys; sys.argv = ['bench/replay.py']; sys.path.insert(0, {str(HERE)!r}); import replay; "
            code += f"replay.record_one({name!r}, {str(path)!r})"
            done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", check=False)
            if done.returncode:
                print(f"{name}: not recorded", file=sys.stderr)
                failed += 1
                continue
            # Without a time of its own in its head, so that the same trace is the same file.
            (TRACES / f"{name}.trace.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    return 1 if failed else 0


def run(
    arguments: argparse.Namespace, chosen: list[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Replay every trace with every contestant."""
    from rtpool._replay import watch

    traces = [path.name.removesuffix(".trace.gz") for path in sorted(TRACES.glob("*.trace.gz"))]
    names = cases.matching(traces, arguments.cases)
    taking_part = [one for one in chosen if one.name in TAKING_PART and not one.missing]
    against = [("glibc" if one.name == "numpy" else one.name) for one in taking_part if one.name != "rtpool"]
    by = watch.tracer()
    progress = make_progress(len(names))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            progress.step(name)
            path = Path(folder) / f"{name}.trace"
            with gzip.open(TRACES / f"{name}.trace.gz", "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            command = [sys.executable, "-m", "rtpool", "replay", str(path), "--json", "--passes", "3"]
            command += ["--rounds", str(min(arguments.rounds, 3)), "--against", ",".join(against)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr}")
            figures = json.loads(done.stdout)
            figures.pop("machine")
            found[name] = figures
    progress.close()
    left_out = {one.name: one.missing for one in chosen if one.name in TAKING_PART and one.missing}
    return {"counted_by": by, "traces": found, "left_out": left_out, "problems": []}, table(found, left_out, by)


def table(found: dict[str, Any], left_out: dict[str, str], by: str) -> str:
    """Counts first: a table a figure, a line a program."""
    who = list(dict.fromkeys(name for figures in found.values() for name in figures["contestants"]))
    first = max(map(len, found), default=0) + 2
    lines = []

    def rows(title: str, cell: Callable[[dict[str, Any]], str]) -> None:
        lines.extend(["", title, " " * first + "".join(f"{name:>18}" for name in who)])
        for name, figures in found.items():
            cells = [cell(figures["contestants"][one]) for one in who]
            lines.append(f"{name:<{first}}" + "".join(f"{text:>18}" for text in cells))

    rows("page faults: first pass / third", lambda one: f"{one['first']['faults']:,} / {one['last']['faults']:,}")
    if by:
        rows(
            f"memory calls into the kernel (by {by}): first pass / third",
            lambda one: f"{one['first']['kernel_calls']:,} / {one['last']['kernel_calls']:,}",
        )
    rows("most resident above the start, MiB", lambda one: f"{(one['first']['peak'] or 0) / 2**20:,.1f}")
    rows("kept when all is freed, MiB", lambda one: f"{one['last']['kept'] / 2**20:,.1f}")
    rows("third pass, us", lambda one: f"{one['last']['nanoseconds'] / 1e3:,.0f}")
    if "glibc" in who and found:
        lines.append(f"{'times glibc (mean)':<{first}}" + "".join(f"{_mean(found, one):>18.2f}" for one in who))
    ours = [figures["contestants"]["rtpool"] for figures in found.values() if "rtpool" in figures["contestants"]]
    misses = sum(one["last"]["misses"] for one in ours)
    lines += ["", f"misses of the pool in all third passes: {misses:,}"]
    slowest = max((figures["bookkeeping_ns"] for figures in found.values()), default=0.0)
    lines.append(f"the replay's own bookkeeping: at most {slowest:.3g} ns an operation, in the times above")
    lines += [f"left out: {name}: {why}" for name, why in left_out.items()]
    return "\n".join(lines).strip("\n")


def _mean(found: dict[str, Any], name: str) -> float:
    """How often the geometric mean of the third passes fits into glibc's."""
    logs = [
        math.log(one["contestants"]["glibc"]["last"]["nanoseconds"] / one["contestants"][name]["last"]["nanoseconds"])
        for one in found.values()
    ]
    return math.exp(sum(logs) / len(logs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    sys.exit(record())
