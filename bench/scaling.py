"""One thread to sixteen, each with blocks of its own or in pairs that hand blocks over: for large machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import core
from contestants import Contestant

_TITLES = {
    "own_blocks": "threads, each with its own blocks, ns a pair until the last is done",
    "handed_over": "pairs of threads, allocated by one, freed by the other, ns a block",
}


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run it with every contestant, `rounds` times in turns; medians of the rounds' medians."""
    report = core.in_turns(arguments, ["scaling"], chosen, make_progress)
    return report, _table(report["rows"])


def _table(rows: list[dict[str, Any]]) -> str:
    who = list(dict.fromkeys(row["contestant"] for row in rows))
    lines: list[str] = []
    for suite, title in _TITLES.items():
        mine = [row for row in rows if row["suite"] == suite]
        for field, least, about in (
            ("median", "min", "median, least"),
            ("scaling", "scaling_min", "times the throughput of one: median, least"),
        ):
            lines += core.columns(mine, who, field, least, f"{title}; {about}")
    return "\n".join(lines).strip("\n")
