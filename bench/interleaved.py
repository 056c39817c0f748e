"""The Python suites: for every case a worker process for each contestant, measured in turns."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cases
from contestants import REWRITTEN, Contestant

HERE = Path(__file__).resolve().parent
# One thread each: turns would otherwise disturb each other through the libraries' waiting threads.
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
_LIBRARIES = ("scipy", "scikit-image", "pandas", "scikit-learn", "opencv-python-headless", "numpy-allocator", "numba")


class Worker:
    """A contestant's process."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        environment = {**os.environ, **_ONE_THREAD, **contestant.environment, "PYTHONHASHSEED": "0"}
        command = [sys.executable, str(HERE / "worker.py"), contestant.name]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer; RuntimeError if the process is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contestant.name} ended with exit code {self._process.wait()} at {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that programs use, as far as they are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _way_of(contestant: Contestant) -> str:
    """The version of the code that a contestant runs."""
    return contestant.name if contestant.name in REWRITTEN else cases.PLAIN


def _measure_case(
    case: str, workers: Sequence[Worker], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], str]:
    """Measure a case with all workers in turns; rows, and what was wrong or nothing."""
    prepared = {}
    for worker in workers:
        prepared[worker] = worker.ask(prepare=case, way=_way_of(worker.contestant))
    values = [answer["value"] for answer in prepared.values()]
    problem = ""
    if any(not math.isclose(value, values[0], rel_tol=1e-6, abs_tol=1e-9) for value in values):
        named = ", ".join(f"{worker.contestant.name}: {answer['value']:.9g}" for worker, answer in prepared.items())
        problem = f"{case}: results differ ({named})"
    firsts = {worker.contestant.name: answer["first"] for worker, answer in prepared.items()}
    slowest = max(answer["seconds"] for answer in prepared.values())
    iterations = max(3, min(20_000, int(arguments.batch / slowest)))
    rounds = arguments.rounds
    if slowest > 0.1:  # one turn of all would take seconds
        iterations, rounds = 2, min(rounds, 3)
    seconds: dict[str, list[float]] = {}
    turns: dict[str, list[float]] = {}
    faults: dict[str, int] = {}
    for turn in range(rounds):
        shift = turn % len(workers)
        order = [*workers[shift:], *workers[:shift]]
        for worker in order if turn % 2 == 0 else reversed(order):
            name = worker.contestant.name
            answer = worker.ask(run=iterations)
            seconds.setdefault(name, []).extend(answer["seconds"])
            turns.setdefault(name, []).append(statistics.median(answer["seconds"]))
            faults[name] = faults.get(name, 0) + answer["faults"]
    inner = cases.inner_iterations(case)
    rows = []
    for name, values in turns.items():
        row: dict[str, Any] = {
            "case": case.partition(":")[2],
            "contestant": name,
            "median": statistics.median(seconds[name]) / inner,
            "min": min(values) / inner,
            "max": max(values) / inner,
            "slowest": max(seconds[name]) / inner,
            "faults": faults[name] / (iterations * rounds * inner),
            "iterations": iterations * rounds * inner,
            "first": firsts[name],
        }
        for reference in ("numpy", "out"):
            if reference in turns:
                pairs = zip(turns[name], turns[reference], strict=True)
                row[f"vs_{reference}"] = statistics.median(mine / theirs for mine, theirs in pairs)
        rows.append(row)
    return rows, problem


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run one of the Python suites."""
    ways = {cases.PLAIN, *cases.ways(arguments.suite)}
    chosen = [c for c in chosen if _way_of(c) in ways]
    taking_part = [c for c in chosen if not c.missing]
    names = cases.matching(cases.names(arguments.suite), arguments.cases)
    progress = make_progress(len(names))
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    try:
        for name in names:
            progress.step(name)
            # New processes for each case: what an allocator learnt from other work must not count.
            workers = [Worker(contestant) for contestant in taking_part]
            try:
                measured, problem = _measure_case(name, workers, arguments)
            finally:
                for worker in workers:
                    worker.close()
            rows += measured
            problems += [problem] if problem else []
    finally:
        progress.close()
    left_out = {c.name: c.missing for c in chosen if c.missing}
    report = {
        "contestants": {c.name: {"title": c.title, "environment": c.environment} for c in taking_part},
        "left_out": left_out,
        "rows": rows,
        "problems": problems,
    }
    return report, table(rows, left_out, problems)


def _time(value: float) -> str:
    for limit, scale, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * scale:.3g} {unit}" if value * scale < 1000 else f"{value * scale:.0f} {unit}"
    return f"{value:.3g} s"


def table(rows: list[dict[str, Any]], left_out: dict[str, str], problems: list[str]) -> str:
    """Format one line a case: median and page faults of each contestant, then the ratios that sum it up."""
    who = list(dict.fromkeys(row["contestant"] for row in rows))
    what = list(dict.fromkeys(row["case"] for row in rows))
    found = {(row["case"], row["contestant"]): row for row in rows}
    width = max(20, *(len(name) + 2 for name in who))
    first = max(len("slowest iteration"), *(len(name) for name in what)) + 2
    lines = ["median of an iteration, page faults of an iteration in brackets"]
    lines.append(" " * first + "".join(f"{name:>{width}}" for name in who))
    for case in what:
        cells = [f"{_time(found[case, name]['median'])} [{found[case, name]['faults']:.3g}]" for name in who]
        lines.append(f"{case:<{first}}" + "".join(f"{cell:>{width}}" for cell in cells))
    for reference, title in (("out", "times the version with out="), ("numpy", "times as fast as NumPy's default")):
        if reference not in who:
            continue
        lines += ["", title]
        ratios: dict[str, list[float]] = {name: [] for name in who}
        for case in what:
            for name in who:
                ratio = found[case, name][f"vs_{reference}"]
                ratios[name].append(ratio if reference == "out" else 1.0 / ratio)
            lines.append(f"{case:<{first}}" + "".join(f"{ratios[name][-1]:>{width}.3f}" for name in who))
        means = [statistics.geometric_mean(ratios[name]) for name in who]
        worst = [max(ratios[name]) if reference == "out" else min(ratios[name]) for name in who]
        lines.append(f"{'geometric mean':<{first}}" + "".join(f"{mean:>{width}.3f}" for mean in means))
        lines.append(f"{'worst':<{first}}" + "".join(f"{value:>{width}.3f}" for value in worst))
    lines += ["", "slowest iteration"]
    for case in what:
        lines.append(f"{case:<{first}}" + "".join(f"{_time(found[case, name]['slowest']):>{width}}" for name in who))
    lines += [f"left out: {name}: {reason}" for name, reason in left_out.items()]
    lines += [f"PROBLEM: {problem}" for problem in problems]
    return "\n".join(lines)
