"""Work on arrays in one process, and what its allocations cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from ..data import count, one, rows, seconds, size
from .shapes import Data, Table, cases_of, columns, contestants, grid


def convert(data: Data) -> Table:
    """Times of an iteration, page faults in brackets."""
    who = contestants(data, "numpy-allocator", "rtpool-active")

    def cell(case: str, name: str) -> str:
        row = one(data, case=case, contestant=name)
        return f"{seconds(row['median'])} [{count(row['faults'])}]"

    return grid("work [page faults]", cases_of(data), who, cell)


def times_out(data: Data) -> Table:
    """Times of the version with `out=`, with means and worst cases."""
    who = contestants(data)
    ratios = {name: [row["vs_out"] for row in rows(data, contestant=name)] for name in who}
    table = grid(
        "times out=", cases_of(data), who, lambda case, name: f"{one(data, case=case, contestant=name)['vs_out']:.2f}"
    )
    table.rows.append(["geometric mean", *(f"{statistics.geometric_mean(ratios[name]):.2f}" for name in who)])
    table.rows.append(["worst", *(f"{max(ratios[name]):.2f}" for name in who)])
    return table


def chains(data: Data) -> Table:
    """Ten operations on arrays that fit the caches."""
    who = contestants(data, "numpy-allocator")
    return grid(
        "array", cases_of(data), who, lambda case, name: seconds(one(data, case=case, contestant=name)["median"])
    )


def empty(data: Data) -> Table:
    """`np.empty` and its free."""
    who = contestants(data)
    cases = {case: size(int(case)) for case in cases_of(data)}
    return grid("bytes", cases, who, lambda case, name: seconds(one(data, case=case, contestant=name)["median"]))


def compiled(data: Data) -> Table:
    """The same function as NumPy runs it, with the pool, with `out=`, and compiled by Numba."""
    who = ("numpy", "rtpool", "out", "numba")
    table = grid(
        "work", cases_of(data), list(who), lambda case, name: seconds(one(data, case=case, contestant=name)["median"])
    )
    table.head.append("Numba's first call")
    for row, case in zip(table.rows, cases_of(data), strict=True):
        row.append(seconds(one(data, case=case, contestant="numba")["first"]))
    return table


def programs(data: Data) -> Table:
    """Twenty programs: times as fast as NumPy's default."""
    who = contestants(data, "numpy", "numpy-allocator")

    def speed(case: str, name: str) -> float:
        return 1 / float(one(data, case=case, contestant=name)["vs_numpy"])

    table = grid("program", cases_of(data), who, lambda case, name: f"{speed(case, name):.2f}")
    for title, combine in (("geometric mean", statistics.geometric_mean), ("lowest", min), ("highest", max)):
        table.rows.append([title, *(f"{combine([speed(case, name) for case in cases_of(data)]):.2f}" for name in who)])
    table.head.insert(1, "NumPy")
    for row, case in zip(table.rows, cases_of(data), strict=False):
        row.insert(1, seconds(one(data, case=case, contestant="numpy")["median"]))
    for row in table.rows[len(cases_of(data)) :]:
        row.insert(1, "")
    return table


def strangers(data: Data) -> Table:
    """Programs of others as they are, and after what their recordings named was changed."""

    def versions(key: str) -> Callable[[Any], str]:
        def cell(program: Any) -> str:
            found = [of[key] for of in (program, program.get("changed")) if of]
            return " → ".join(f"{value:,}" if isinstance(value, int) else value for value in found)

        return cell

    return columns(
        data["programs"].values(),
        ("program", lambda program: str(program["source"])),
        ("arrays", versions("arrays")),
        ("bytes made", versions("bytes")),
        ("temporaries", versions("temporaries")),
        ("peak", versions("peak")),
    )


def copies_loops(data: Data) -> Table:
    """Loops that copy an image a call: times NumPy's speed."""
    return columns(
        data["loops"],
        ("loop", lambda line: str(line["loop"])),
        ("NumPy", lambda line: f"{line['milliseconds']['numpy assignment']:.1f} ms"),
        ("rtpool.copyto", lambda line: f"{line['milliseconds']['rtpool.copyto']:.1f} ms"),
        ("times NumPy's speed", lambda line: f"{line['speedup']:.2f}"),
        ("half of all rounds", lambda line: f"{line['quarters'][0]:.2f} to {line['quarters'][1]:.2f}"),
    )


def copies_tiles(data: Data) -> Table:
    """Images tiled into one canvas."""
    pages = [one_of["pages"] for one_of in data["tiles"]]
    ways = list(dict.fromkeys(way for tiles in data["tiles"] for way in tiles["milliseconds"]))

    def cell(way: str, tiles: dict[str, Any]) -> str:
        if way not in tiles["milliseconds"]:
            return "-"
        return f"{tiles['milliseconds'][way]:.1f} ms, {tiles['times_numpy'][way]:.2f}"

    body = [[way, *(cell(way, tiles) for tiles in data["tiles"])] for way in ways]
    return Table(["way", *(f"pages: {page}" for page in pages)], body)
