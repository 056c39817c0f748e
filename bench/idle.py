"""What giving idle memory back costs those who allocate meanwhile: core_bench_idle, in turns."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from contestants import Contestant


def run(
    arguments: argparse.Namespace, _: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run it `rounds` times: medians of the rounds, of a longest time also the longest of all rounds."""
    program = arguments.build / "bench" / "cpp" / "core_bench_idle"
    progress = make_progress(arguments.rounds)
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for turn in range(arguments.rounds):
        progress.step(f"round {turn + 1}")
        done = subprocess.run([str(program), "--json", "--seconds", "4"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{program}: exit code {done.returncode}\n{done.stderr}")
        for measured in json.loads(done.stdout)["rows"]:
            fields = found.setdefault((measured.pop("suite"), measured.pop("label")), {})
            for field, value in measured.items():
                fields.setdefault(field, []).append(value)
    progress.close()
    rows: list[dict[str, Any]] = []
    for (suite, label), fields in found.items():
        row: dict[str, Any] = {"suite": suite, "case": label}
        row |= {field: statistics.median(values) for field, values in fields.items()}
        if "max" in fields:
            row["longest"] = max(fields["max"])
        rows.append(row)
    return {"rows": rows, "rounds": arguments.rounds}, _table(rows)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        figures = ", ".join(f"{name} {value:,.6g}" for name, value in row.items() if name not in ("suite", "case"))
        lines.append(f"{row['suite']:<8}{row['case']:<24}{figures}")
    return "\n".join(lines)
