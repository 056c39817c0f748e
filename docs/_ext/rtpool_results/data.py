"""The files of bench/results, and figures as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[3] / "bench" / "results"

# How contestants are called on pages, in the order in which they stand.
NAMES = {
    "numpy": "NumPy",
    "python": "Python as it is",
    "glibc": "glibc",
    "tuned": "glibc tuned",
    "jemalloc": "jemalloc",
    "tcmalloc": "tcmalloc",
    "mimalloc": "mimalloc",
    "numpy-allocator": "numpy-allocator",
    "numba": "Numba",
    "rtpool": "rtpool",
    "rtpool-active": "rtpool, activated",
    "out": "by hand, out=",
}


class Missing(Exception):
    """A file of results that is not there, or that does not hold what a page shows of it."""


@cache
def load(name: str) -> Mapping[str, Any]:
    """Read a file of results, once a build.

    Raises
    ------
    Missing
        If it is not there; the text says so.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise Missing(f"bench/results/{name}.json is not there; bench/README.md says what makes it")
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def rows(data: Mapping[str, Any], **where: object) -> list[dict[str, Any]]:
    """The rows that have these values."""
    return [row for row in data["rows"] if all(row.get(key) == value for key, value in where.items())]


def one(data: Mapping[str, Any], **where: object) -> dict[str, Any]:
    """The only row that has these values."""
    found = rows(data, **where)
    if len(found) != 1:
        raise Missing(f"{len(found)} rows have {where}")
    return found[0]


def in_order(names: Iterable[str]) -> list[str]:
    """Contestants in the order in which they stand everywhere."""
    there = set(names)
    return [name for name in NAMES if name in there] + sorted(there - set(NAMES))


def provenance(data: Mapping[str, Any]) -> str:
    """The machine and the versions of a file of results, in a line; they are noted in several ways."""
    machine = data.get("machine", {})
    notes: dict[str, Any] = {"system": machine} if isinstance(machine, str) else dict(machine)
    notes = {
        **data.get("versions", {}),
        **{key: data[key] for key in ("python", "numpy", "cpus") if key in data},
        **notes,
    }

    def first(*keys: str) -> Any:
        return next((notes[key] for key in keys if notes.get(key)), None)

    parts = [first("processor", "cpu")]
    if processors := first("processors", "cores", "cpus"):
        parts.append(f"{processors} processors")
    if memory := first("memory_gib"):
        parts.append(f"{memory:g} GiB")
    system = first("linux", "kernel", "system")
    if system:
        version = str(system).removeprefix("Linux").strip(" -").split("-")[0]
        parts.append(f"Linux {version}")
    for key, title in (("python", "Python"), ("numpy", "NumPy"), ("dask", "Dask"), ("rtpool", "rtpool")):
        if notes.get(key):
            parts.append(f"{title} {notes[key]}")
    return ", ".join(str(part) for part in parts if part)


def seconds(value: float) -> str:
    """A span of time with three digits, as `5.51 ms`."""
    for scale, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if abs(value) * scale < 999.5:
            return f"{digits(value * scale)} {unit}"
    return f"{digits(value)} s"


def digits(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def count(value: float) -> str:
    """A count, of page faults an iteration for instance: whole numbers as such, 0 for none."""
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.2g}"


def size(value: float) -> str:
    """Bytes as text: `64 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:g} {unit}"
        value /= 1024
    return f"{value:g} GiB"
