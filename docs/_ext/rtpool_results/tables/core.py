"""The core alone, without Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data import NAMES, digits, in_order, one, rows, seconds
from .shapes import Data, Table, columns, grid


def core_pairs(data: Data) -> Table:
    """malloc and free of one block, in ns."""
    return _core(data, "pairs", "bytes", lambda row: digits(row["median"]))


def core_batches(data: Data) -> Table:
    """32 blocks allocated, then freed."""
    return _core(data, "batches", "bytes", lambda row: digits(row["median"]))


def core_threads(data: Data) -> Table:
    """Two threads against one: times the throughput."""
    return _core(data, "threads", "blocks", lambda row: f"{row['scaling']:.2f}")


def core_scaling(data: Data) -> Table:
    """One to sixteen threads, each with its own blocks: ns a pair."""
    return _core(data, "own_blocks", "blocks, threads", lambda row: digits(row["median"]))


def core_scaling_pairs(data: Data) -> Table:
    """One to eight pairs of threads, of which one allocates and the other frees: ns a block."""
    return _core(data, "handed_over", "blocks, pairs of threads", lambda row: digits(row["median"]))


def core_idle(data: Data) -> Table:
    """How long a step of giving idle memory back takes."""
    return columns(
        rows(data, suite="step"),
        ("a step of", lambda row: str(row["case"])),
        ("steps", lambda row: f"{row['count']:,.0f}"),
        *((figure, lambda row, figure=figure: seconds(row[figure] / 1e9)) for figure in ("p50", "p99")),
        ("longer than 20 us", lambda row: f"{row['above_20_us']:,.0f}"),
    )


def _core(data: Data, suite: str, corner: str, text: Callable[[dict[str, Any]], str]) -> Table:
    found = rows(data, suite=suite)
    who = in_order(row["contestant"] for row in found)
    cases = {row["case"]: row["case"] for row in found}
    return grid(corner, cases, who, lambda case, name: text(one(data, suite=suite, case=case, contestant=name)))


def core_mixed(data: Data) -> Table:
    """Mixed sizes with 64 alive, a free and a malloc."""
    found = rows(data, suite="mixed", case="64 alive, free + malloc")
    return columns(
        sorted(found, key=lambda row: in_order(NAMES).index(row["contestant"])),
        ("ns", lambda row: NAMES[row["contestant"]]),
        *((figure, lambda row, figure=figure: digits(row[figure])) for figure in ("mean", "p50", "p99", "p99.99")),
        ("longest", lambda row: seconds(row["max"] / 1e9)),
    )


def core_producer(data: Data) -> Table:
    """Blocks made by one thread and freed by another."""
    return columns(
        rows(data, suite="producer_consumer"),
        ("ns a block", lambda row: NAMES[row["contestant"]]),
        ("median", lambda row: digits(row["median"])),
        ("the free alone", lambda row: digits(row["free_p50"])),
        ("its longest", lambda row: seconds(row["free_max"] / 1e9)),
        ("MiB grown", lambda row: digits(row["resident_growth"])),
    )


def core_ahead(data: Data) -> Table:
    """Where another allocator of the core's benchmark is ahead by more than a tenth; where there is none, that."""
    compared = {
        "pairs": "median",
        "batches": "median",
        "mixed": "mean",
        "threads": "all_threads",
        "handoff": "median",
        "producer_consumer": "median",
    }
    body = []
    for suite, figure in compared.items():
        found = [row for row in rows(data, suite=suite) if suite != "mixed" or "alive" in row["case"]]
        for case in dict.fromkeys(row["case"] for row in found):
            by_name = {row["contestant"]: row[figure] for row in found if row["case"] == case}
            best = min(by_name, key=lambda name: by_name[name])
            if by_name[best] < by_name["rtpool"] / 1.1:
                title = f"{suite.replace('_', ' ')}: {case}"
                body.append([title, f"{digits(by_name['rtpool'])} ns", f"{digits(by_name[best])} ns", NAMES[best]])
    return Table(["where", "rtpool", "the best", "of"], body or [["nowhere", "", "", ""]])


def core_waste(data: Data) -> Table:
    """Bytes granted for bytes asked for, at worst."""
    return _core(data, "waste", "asked for", lambda row: f"{row['worst_ratio']:.2f} (at {row['at']:,.0f} B)")


def interface(data: Data) -> Table:
    """An allocation and its release through the table of the C interface, and without."""
    counted = {size: f"{of['internal']:.0f} and {of['interface']:.0f}" for size, of in data["instructions"].items()}
    return columns(
        data["pairs_ns"],
        ("bytes", lambda row: str(row["size"])),
        ("within rtpool", lambda row: f"{row['internal']:.2f} ns"),
        ("through the table", lambda row: f"{row['interface']:.2f} ns"),
        ("more", lambda row: f"{row['more']:.2f} ns"),
        ("instructions", lambda row: counted.get(row["size"], "")),
    )
