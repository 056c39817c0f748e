"""The core alone, in C++: a pool against glibc's malloc and the LD_PRELOAD allocators, in turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from contestants import Contestant

_SUITES = ("pairs", "batches", "mixed", "threads", "handoff", "producer_consumer", "waste")
_TAKING_PART = ("numpy", "tuned", "jemalloc", "tcmalloc", "mimalloc", "rtpool")


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run every suite with every contestant, `rounds` times in turns; medians of the rounds' medians."""
    folder = arguments.build / "bench" / "cpp"
    taking_part = [c for c in chosen if c.name in _TAKING_PART and not c.missing]
    suites = [s for s in _SUITES if not arguments.cases or any(part in s for part in arguments.cases)]
    progress = make_progress(arguments.rounds * len(suites) * len(taking_part))
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for turn in range(arguments.rounds):
        for suite in suites:
            if suite == "waste" and turn > 0:
                continue  # the same every time
            shift = turn % len(taking_part)
            order = [*taking_part[shift:], *taking_part[:shift]]
            for contestant in order if turn % 2 == 0 else reversed(order):
                name = "glibc" if contestant.name == "numpy" else contestant.name
                progress.step(f"{suite}, {name}")
                program = "core_bench_rtpool" if name == "rtpool" else "core_bench_malloc"
                # Many turns of few rounds: a machine's speed changes between them.
                rounds = "2" if arguments.rounds > 10 else "5"
                command = [str(folder / program), "--json", "--rounds", rounds, "--suite", suite]
                environment = {**os.environ, **contestant.environment}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise RuntimeError(f"{name}: {' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
                for measured in json.loads(done.stdout)["rows"]:
                    fields = found.setdefault((measured.pop("suite"), measured.pop("label"), name), {})
                    for field, value in measured.items():
                        fields.setdefault(field, []).append(value)
    progress.close()
    rows = _kept(arguments, suites)
    for (suite, label, name), fields in found.items():
        row: dict[str, Any] = {"suite": suite, "case": label, "contestant": name, "rounds": arguments.rounds}
        for field, values in fields.items():
            # The least of the least and the most of the most; of everything else the median.
            pick = {"min": min, "scaling_min": min, "max": max, "scaling_max": max}.get(field, statistics.median)
            row[field] = pick(values)
        rows.append(row)
    rows.sort(key=lambda row: _SUITES.index(row["suite"]))
    return {"contestants": [c.name for c in taking_part], "rows": rows, "rounds": arguments.rounds}, _table(rows)


def _kept(arguments: argparse.Namespace, suites: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the results as they are whose suites are not measured now (``--keep``)."""
    if not arguments.keep:
        return []
    report = json.loads((arguments.results / "core.json").read_text(encoding="utf-8"))
    return [row for row in report["rows"] if row["suite"] not in suites]


def _table(rows: list[dict[str, Any]]) -> str:
    who = list(dict.fromkeys(row["contestant"] for row in rows))
    lines: list[str] = []
    columns = {
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
        if suite in columns:
            field, least, title = columns[suite]
            lines += [f"\n{title}", " " * 22 + "".join(f"{name:>17}" for name in who)]
            for label in dict.fromkeys(row["case"] for row in mine):
                by_name = {row["contestant"]: row for row in mine if row["case"] == label}
                cells = [f"{by_name[n][field]:.3g}, {by_name[n][least]:.3g}" if n in by_name else "-" for n in who]
                lines.append(f"{label:<22}" + "".join(f"{cell:>17}" for cell in cells))
            continue
        lines.append(f"\n{suite.replace('_', ' ')}")
        for row in mine:
            about = ("suite", "case", "contestant", "rounds")
            figures = {field: value for field, value in row.items() if field not in about}
            text = ", ".join(f"{field} {value:.4g}" for field, value in figures.items())
            lines.append(f"{row['contestant']:<12}{row['case']:<26}{text}")
    return "\n".join(lines).strip("\n")
