"""Single figures for the text of pages, by name: what a page says is what a file of results holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from .data import Missing, count, digits, load, one, rows, seconds

Data = Mapping[str, Any]


def _mean(file: str, name: str, key: str = "vs_numpy") -> float:
    return statistics.geometric_mean(1 / row[key] for row in rows(load(file), contestant=name))


def _programs_mean(name: str) -> str:
    return f"{_mean('programs', name):.2f}"


def _programs_highest(name: str) -> str:
    return f"{max(1 / row['vs_numpy'] for row in rows(load('programs'), contestant=name)):.1f}"


def _lowest_range(name: str) -> str:
    speeds = [1 / row["vs_numpy"] for row in rows(load("programs_lowest"), contestant=name)]
    return f"{min(speeds):.2f} to {max(speeds):.2f}"


def _convert(case: str, name: str, key: str = "median") -> str:
    value = one(load("convert"), case=case, contestant=name)[key]
    return seconds(value) if key == "median" else count(value) if key == "faults" else f"{value:.2f}"


def _pair(case: str, name: str) -> str:
    return f"{digits(one(load('core'), suite='pairs', case=case, contestant=name)['min'])} ns"


def _rested(name: str) -> str:
    rows = load("memory")["figures"][name]["rows"]
    return f"{next(row for row in rows if row['work'].startswith('40 x 16'))['rested']:,.0f} MiB"


def _record(name: str) -> str:
    return f"{load('trace')['contestants'][name]['cost_ns']:.0f} ns"


def _event_bytes() -> str:
    large = load("trace")["large"]
    return f"{large['bytes'] / large['events']:.1f}"


def _entering(what: str) -> str:
    return seconds(load("realtime")["entering"][what])


def _zeros(what: str) -> str:
    return seconds(load("realtime")["zeros"][what])


def _garbage(what: str) -> str:
    return seconds(load("realtime")["garbage"][what])


def _late(name: str, percentile: str) -> str:
    return seconds(load("realtime")["loop"]["rows"][name]["late"][percentile])


def _work(name: str, percentile: str) -> str:
    return seconds(load("realtime")["loop"]["rows"][name]["work"][percentile])


def _startup(case: str) -> str:
    row = one(load("startup"), case=case)
    return f"{row['milliseconds_more']:.0f} ms and {row['resident_mib_more']:.1f} MiB"


def _dask_unmanaged(name: str) -> str:
    return f"{load('dask')['contestants'][name]['unmanaged_mib']:.0f} MiB"


def _dask_medians(*names: str) -> str:
    found = load("dask")["contestants"]
    medians = [case["times_dask"]["median"] for name in names for case in found[name]["cases"].values()]
    return f"{min(medians):.2f} to {max(medians):.2f}"


def _dask_transfer(way: str, what: str) -> str:
    took = load("dask")["transfer_of_1_gib_s"][way]
    return seconds({"median": statistics.median, "least": min, "most": max}[what](took))


FIGURES: dict[str, Callable[..., str]] = {
    "programs-mean": _programs_mean,
    "programs-highest": _programs_highest,
    "programs-lowest": _lowest_range,
    "convert": _convert,
    "pair": _pair,
    "rested": _rested,
    "record": _record,
    "event-bytes": _event_bytes,
    "entering": _entering,
    "zeros": _zeros,
    "garbage": _garbage,
    "late": _late,
    "work": _work,
    "startup": _startup,
    "dask-unmanaged": _dask_unmanaged,
    "dask-medians": _dask_medians,
    "dask-transfer": _dask_transfer,
}


def figure(text: str) -> str:
    """`programs-mean tcmalloc`, or with arguments that have spaces `entering | recording an iteration`.

    Raises
    ------
    Missing
        If there is no such figure, or a file does not hold it.
    """
    name, *arguments = [part.strip() for part in text.split("|")] if "|" in text else text.split()
    if name not in FIGURES:
        raise Missing(f"no figure is called {name!r}; there are {', '.join(sorted(FIGURES))}")
    try:
        return FIGURES[name](*arguments)
    except (KeyError, TypeError) as error:
        raise Missing(f"{text!r}: {error!r}") from error
