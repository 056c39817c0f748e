"""A 1 kHz loop over camera frames: every allocator a process of its own, all of them taking turns in one run.

    python bench/realtime.py                 60 s of each contestant's loop, 8 to 9 minutes in all
    python bench/realtime.py --seconds 5     2 minutes: shows that it runs, not how fast

Each frame of 640x480 is converted to float, blurred by slices, compared with the one before and thresholded into an
np.zeros canvas; a small system of equations is solved. All contestants use the same timer, the same recorder and the
same rule for garbage collection; they differ in where arrays come from. `out` is the same work written by hand with
out= and buffers made before. Beside it: the first iteration after a plan was prepared, np.zeros of 4 MiB with and
without idle time, a loop full of garbage, what entering a section costs, and rtpool's kernel calls for memory as strace
counts them.

Results go to bench/results/realtime.json and realtime.txt. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contestants
import realtime_parts as parts

from rtpool.cli import _machine

HERE = Path(__file__).resolve().parent
WHO = ("numpy", "tuned", "tcmalloc", "mimalloc", "out", "rtpool")
MS = 1e3


@contextlib.contextmanager
def alone(lock: str | None) -> Iterator[None]:
    """Keep other measurements on this machine waiting, if they use the same lock: that of `flock FILE COMMAND`."""
    if lock is None:
        yield
        return
    command = ["flock", "-x", lock, "sh", "-c", "echo mine; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.stdin.close()


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turns."""
    everyone = {one.name: one for one in contestants.everyone()}
    chosen = [everyone[name] for name in WHO if not arguments.only or name in arguments.only]
    left_out = {one.name: one.missing for one in chosen if one.missing}
    turns = max(1, round(arguments.seconds / arguments.turn))
    processes = {}
    for one in chosen:
        if not one.missing:
            loop = [one.name, str(arguments.period), str(arguments.turn), str(arguments.priority)]
            command = [sys.executable, str(HERE / "realtime_loop.py"), *loop]
            environment = {**os.environ, **parts.ONE_THREAD, **one.environment}
            processes[one.name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
    for turn in range(turns):
        order = list(processes.items())
        shift = turn % len(order)
        with alone(arguments.lock):
            for name, process in [*order[shift:], *order[:shift]]:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                if process.stdout.readline() != "done\n":
                    raise RuntimeError(f"{name} ended with {process.wait()}")
                print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr)
    rows = {}
    for name, process in processes.items():
        output, _ = process.communicate()
        rows[name] = json.loads(output)
    return {"rows": rows, "left_out": left_out, "turns": turns}


def check(report: dict[str, Any]) -> list[str]:
    """The targets that were missed."""
    missed = []
    rows = report["loop"]["rows"]
    ours = rows.get("rtpool")
    if ours is not None:
        for what in ("minor_faults", "major_faults", "kernel_calls", "misses"):
            if ours[what]:
                missed.append(f"rtpool: {ours[what]} {what}")
        for name, row in rows.items():
            allowed = 1.05 if name == "out" else 1.0
            if name != "rtpool" and ours["work"]["p99.9"] > allowed * row["work"]["p99.9"]:
                missed.append(
                    f"p99.9 of rtpool is above {name}'s: {ours['work']['p99.9']:.2e} {row['work']['p99.9']:.2e}"
                )
    zeros = report["zeros"]
    if report["first"]["rtpool"]["faults_in_300"]:
        missed.append(f"a prepared program faults: {report['first']['rtpool']['faults_in_300']:g} in 300 iterations")
    if report["trace"].get("memory_calls"):
        missed.append(f"{report['trace']['memory_calls']} kernel calls for memory in the loop")
    limits = [
        ("first iteration after prepare", report["first"]["rtpool"]["first_to_median"], 1.1),
        ("np.zeros to np.empty, idle time", zeros["zeros, idle time"] / zeros["empty, idle time"], 1.5),
        ("np.zeros to NumPy's, both written",
         zeros["zeros and write, no idle time"] / zeros["zeros and write, NumPy's"], 1.0),
        ("handler, us", report["entering"]["handler"] * 1e6, 1.0),
        ("section, us", report["entering"]["section, nothing asked for"] * 1e6, 50.0),
        ("recording, ns", report["entering"]["recording an iteration"] * 1e9, 200.0),
    ]  # fmt: skip
    return missed + [f"{what}: {value:.3g} (at most {limit:g})" for what, value, limit in limits if value > limit]


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    loop = report["loop"]
    lines = [f"work of an iteration [ms], {report['arguments']['period'] * MS:g} ms period, 640x480 frames"]
    heads = [
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "first",
        "max 1-100",
        "overruns",
        "minor faults",
        "kernel",
        "misses",
    ]
    lines.append(f"{'':<10}" + "".join(f"{head:>17}" for head in heads))
    for name, row in loop["rows"].items():
        times = [row["work"][head] for head in heads[:6]] + [row["first_100"][0], max(row["first_100"])]
        cells = [f"{value * MS:.3f}" for value in times]
        cells += [f"{row['overruns']:,} of {row['iterations']:,}", f"{row['minor_faults']:,}"]
        cells += [str(row.get("kernel_calls", "-")), str(row.get("misses", "-"))]
        lines.append(f"{name:<10}" + "".join(f"{cell:>17}" for cell in cells))
    lines += ["", "late [ms]", f"{'':<10}" + "".join(f"{head:>13}" for head in heads[:6])]
    for name, row in loop["rows"].items():
        lines.append(f"{name:<10}" + "".join(f"{row['late'][head] * MS:>13.3f}" for head in heads[:6]))
    lines += ["", "first iteration of a program (NumPy itself warm), times the median one"]
    for name, row in report["first"].items():
        lines.append(
            f"{name:<20}{row['first_to_median']:>8.2f}   {row['first'] * MS:.3f} ms against"
            f" {row['median'] * MS:.3f} ms, an iteration after a pause of 50 ms {row['after_pause_to_median']:.2f}"
        )
    for title, key, scale, unit in (
        ("4 MiB", "zeros", 1e6, "us"),
        ("worst iteration of a loop full of garbage, by gc=", "garbage", 1e3, "ms"),
        ("entering and leaving, and one recorded iteration", "entering", 1e9, "ns"),
    ):
        lines += ["", title] + [f"{name:<34}{value * scale:>12,.2f} {unit}" for name, value in report[key].items()]
    traced = report["trace"]
    lines += ["", "kernel calls for memory between the first and the last iteration of rtpool's loop, by strace"]
    lines.append(traced.get("missing") or f"{traced['memory_calls']} in {traced['seconds']:g} s")
    lines += [f"left out: {name}: {why}" for name, why in loop["left_out"].items()]
    lines += [f"MISSED: {text}" for text in report["missed"]] or ["", "all targets met"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each contestant's loop")
    parser.add_argument("--turn", type=float, default=5.0, help="seconds before the next contestant's turn")
    parser.add_argument("--period", type=float, default=0.001)
    parser.add_argument("--priority", type=int, default=0, help="run every contestant's loop under SCHED_FIFO")
    parser.add_argument("--only", nargs="+", metavar="CONTESTANT", choices=WHO)
    parser.add_argument("--lock", metavar="FILE", help="hold the lock of `flock FILE` during each round")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.turn = min(arguments.turn, arguments.seconds)
    command = ["python", "bench/realtime.py", *sys.argv[1:]]
    report: dict[str, Any] = {
        "command": shlex.join(part for part in command if part != arguments.lock and part != "--lock"),
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine.describe(),
        "arguments": {
            "period": arguments.period,
            "priority": arguments.priority,
            "load": os.getloadavg(),
            "seconds": arguments.seconds,
            "turn": arguments.turn,
        },
        "loop": compare(arguments),
    }
    for key, measure in (
        ("first", lambda: parts.first_iteration(arguments.period)),
        ("zeros", parts.zeros_of_four_mib),
        ("garbage", parts.garbage),
        ("entering", parts.entering),
        ("trace", lambda: parts.trace(arguments.period, min(arguments.seconds, 10.0))),
    ):
        print(key, file=sys.stderr)
        with alone(arguments.lock):
            report[key] = measure()
    report["missed"] = check(report)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "realtime.json").write_text(json.dumps(report, indent=1) + "\n")
    text = table(report)
    (arguments.output / "realtime.txt").write_text(text)
    print(text, end="")
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
