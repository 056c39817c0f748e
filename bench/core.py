"""The core alone, in C++: a pool against glibc's malloc and the LD_PRELOAD allocators, in turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cases
from contestants import Contestant

_SUITES = ("pairs", "batches", "mixed", "threads", "handoff", "producer_consumer", "waste")
_TAKING_PART = ("numpy", "tuned", "jemalloc", "tcmalloc", "mimalloc", "rtpool")


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run every suite with every contestant, `rounds` times in turns; medians of the rounds' medians."""
    suites = cases.matching(_SUITES, arguments.cases)
    report = in_turns(arguments, suites, chosen, make_progress)
    report["rows"] = sorted(_kept(arguments, suites) + report["rows"], key=lambda row: _SUITES.index(row["suite"]))
    return report, _table(report["rows"])


def in_turns(
    arguments: argparse.Namespace,
    suites: Sequence[str],
    chosen: Sequence[Contestant],
    make_progress: Callable[[int], Any],
) -> dict[str, Any]:
    """Run suites of core_bench with every contestant, `rounds` times in turns, fewer where `seconds` would not do."""
    folder = arguments.build / "bench" / "cpp"
    # The program has a pool of its own: it does without the package.
    taking_part = [c for c in chosen if c.name in _TAKING_PART and (c.name == "rtpool" or not c.missing)]
    progress = make_progress(arguments.rounds * len(suites) * len(taking_part))
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    began = time.monotonic()
    rounds = 0
    while rounds < arguments.rounds:
        if rounds and arguments.seconds and (time.monotonic() - began) * (rounds + 1) / rounds > arguments.seconds:
            break
        for suite in suites:
            if suite == "waste" and rounds > 0:
                continue  # the same every time
            shift = rounds % len(taking_part)
            order = [*taking_part[shift:], *taking_part[:shift]]
            for contestant in order if rounds % 2 == 0 else reversed(order):
                name = "glibc" if contestant.name == "numpy" else contestant.name
                progress.step(f"{suite}, {name}")
                for measured in _measure(folder, suite, arguments.rounds, name, contestant):
                    fields = found.setdefault((measured.pop("suite"), measured.pop("label"), name), {})
                    for field, value in measured.items():
                        fields.setdefault(field, []).append(value)
        rounds += 1
    progress.close()
    rows: list[dict[str, Any]] = []
    for (suite, label, name), fields in found.items():
        row: dict[str, Any] = {"suite": suite, "case": label, "contestant": name, "rounds": rounds}
        for field, values in fields.items():
            # The least of the least and the most of the most; of everything else the median.
            pick = {"min": min, "scaling_min": min, "max": max, "scaling_max": max}.get(field, statistics.median)
            row[field] = pick(values)
        rows.append(row)
    left_out = {c.name: c.missing for c in chosen if c.name in _TAKING_PART and c not in taking_part}
    return {"contestants": [c.name for c in taking_part], "left_out": left_out, "rows": rows, "rounds": rounds}


def _measure(folder: Path, suite: str, turns: int, name: str, contestant: Contestant) -> list[dict[str, Any]]:
    program = "core_bench_rtpool" if name == "rtpool" else "core_bench_malloc"
    # Many turns of few rounds: a machine's speed changes between them.
    command = [str(folder / program), "--json", "--rounds", "2" if turns > 10 else "5", "--suite", suite]
    environment = {**os.environ, **contestant.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def _kept(arguments: argparse.Namespace, suites: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the results as they are whose suites are not measured now (``--keep``)."""
    if not arguments.keep:
        return []
    report = json.loads((arguments.results / "core.json").read_text(encoding="utf-8"))
    return [row for row in report["rows"] if row["suite"] not in suites]


def _table(rows: list[dict[str, Any]]) -> str:
    who = list(dict.fromkeys(row["contestant"] for row in rows))
    lines: list[str] = []
    shown = {
        "pairs": ("median", "min", "malloc + free of one block, ns: median of the rounds, least of all"),
        "batches": ("median", "min", "32 blocks allocated, then freed in that order, ns a block: median, least"),
        "threads": (
            "scaling",
            "scaling_min",
            "two threads against one, each with its own blocks: times the throughput, median, least",
        ),
        "handoff": ("median", "min", "allocated by one thread, freed by another, ns a block: median, least"),
    }
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        if suite == "threads":
            title = "two threads, each with its own blocks, ns a pair: median"
            lines += [f"\n{title}", " " * 22 + "".join(f"{name:>17}" for name in who)]
            for label in dict.fromkeys(row["case"] for row in mine):
                took = {row["contestant"]: row["all_threads"] for row in mine if row["case"] == label}
                lines.append(f"{label:<22}" + "".join(f"{took[n]:>17.3g}" if n in took else f"{'-':>17}" for n in who))
        if suite in shown:
            field, least, title = shown[suite]
            lines += columns(mine, who, field, least, title)
            continue
        lines.append(f"\n{suite.replace('_', ' ')}")
        for row in mine:
            about = ("suite", "case", "contestant", "rounds")
            figures = {field: value for field, value in row.items() if field not in about}
            text = ", ".join(f"{field} {value:.4g}" for field, value in figures.items())
            lines.append(f"{row['contestant']:<12}{row['case']:<26}{text}")
    return "\n".join(lines).strip("\n")


def columns(rows: list[dict[str, Any]], who: Sequence[str], field: str, least: str, title: str) -> list[str]:
    """Lines of a table: cases down, contestants across, two fields in each cell."""
    cells = {(row["case"], row["contestant"]): f"{row[field]:.3g}, {row[least]:.3g}" for row in rows}
    first = max([22, *(len(row["case"]) + 2 for row in rows)])
    width = max([17, *(len(cell) + 2 for cell in cells.values())])
    lines = [f"\n{title}", " " * first + "".join(f"{name:>{width}}" for name in who)]
    for label in dict.fromkeys(row["case"] for row in rows):
        lines.append(f"{label:<{first}}" + "".join(f"{cells.get((label, name), '-'):>{width}}" for name in who))
    return lines
