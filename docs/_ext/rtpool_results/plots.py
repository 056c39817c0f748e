"""Plots of the files in bench/results. Each draws into axes what a file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from . import drawing, names
from .data import NAMES, in_order, one, rows, size
from .drawing import COLORS, INK, MARKERS, MUTED

Data = Mapping[str, Any]


def _style(name: str) -> dict[str, Any]:
    """How a contestant is drawn: rtpool over all others."""
    ours = name.startswith("rtpool")
    return {
        "color": COLORS[name],
        "marker": MARKERS.get(name, "."),
        "zorder": 4 if ours else 3,
        "label": NAMES[name],
        "markersize": 9 if MARKERS.get(name) == "|" else 6 if ours else 4.5,
        "markeredgewidth": 2.2 if MARKERS.get(name) == "|" else 0.6,
    }


def _legend(figure: Any, axes: Any, columns: int = 4) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, fontsize=8, handletextpad=0.4, columnspacing=1.2
    )


def _dots(
    figure: Any, axes: Any, cases: Mapping[str, str], who: Sequence[str], value: Callable[[str, str], float | None]
) -> None:
    """A row a case, a mark a contestant."""
    titles = list(cases.values())
    for place, name in enumerate(who):
        apart = (place - (len(who) - 1) / 2) * 0.5 / len(who)  # those of the same value stand below each other
        at = [(value(case, name), number + apart) for number, case in enumerate(cases)]
        there = [(x, y) for x, y in at if x is not None]
        axes.plot([x for x, _ in there], [y for _, y in there], ls="", **_style(name))
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes)


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _lines(figure: Any, axes: Any, x: Sequence[float], series: Mapping[str, Sequence[float]], columns: int = 4) -> None:
    for name, values in series.items():
        axes.plot(x, values, **_style(name))
    _legend(figure, axes, columns)


def _size_axis(axes: Any, values: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    shown = list(values)[:: max(1, round(len(values) / 6))]
    axes.set_xticks(shown, [size(value) for value in shown])
    axes.minorticks_off()


def _contestants(data: Data, *left_out: str) -> list[str]:
    return [name for name in in_order(row["contestant"] for row in data["rows"]) if name not in left_out]


def _case_names(data: Data) -> dict[str, str]:
    return {row["case"]: names.case(row["case"]) for row in data["rows"]}


def frame(figure: Any, axes: Any, data: Data) -> None:
    who = _contestants(data, "tuned", "numpy-allocator", "rtpool-active")
    values = [one(data, case="frames:1080", contestant=name)["median"] * 1e3 for name in who]
    faults = [one(data, case="frames:1080", contestant=name)["faults"] for name in who]
    axes.barh(range(len(who)), values, color=[COLORS[name] for name in who], height=0.62)
    for at, (value, fault) in enumerate(zip(values, faults, strict=True)):
        text = f"{value:.1f} ms, {fault:,.0f} page faults" if fault >= 0.5 else f"{value:.1f} ms, no page fault"
        axes.text(value + max(values) * 0.012, at, text, va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(who)), [NAMES[name] for name in who])
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.75)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= max(values)])
    axes.set_xlabel("ms a frame of 1920 x 1080", loc="left")
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)


def convert(figure: Any, axes: Any, data: Data) -> None:
    who = _contestants(data, "out", "numpy-allocator", "rtpool-active")
    _dots(
        figure, axes, _case_names(data), who, lambda case, name: float(one(data, case=case, contestant=name)["vs_out"])
    )
    _ratio_axis(axes, "time, in times of the version with out=")


def _ratio_axis(axes: Any, label: str) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color=MUTED, lw=1, zorder=2)
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks)
    axes.minorticks_off()
    _plain_numbers(axes.xaxis)
    axes.grid(axis="x", visible=True)
    axes.set_xlabel(label)


def programs(figure: Any, axes: Any, data: Data) -> None:
    who = [name for name in ("jemalloc", "tcmalloc", "mimalloc", "rtpool-active") if rows(data, contestant=name)]
    cases = sorted(_case_names(data), key=lambda case: one(data, case=case, contestant="rtpool-active")["vs_numpy"])
    _dots(
        figure,
        axes,
        {case: names.case(case) for case in cases},
        who,
        lambda case, name: 1 / float(one(data, case=case, contestant=name)["vs_numpy"]),
    )
    _ratio_axis(axes, "times as fast as with NumPy's default (right is better)")


def chains(figure: Any, axes: Any, data: Data) -> None:
    cases = list(_case_names(data))
    who = _contestants(data, "out", "numpy-allocator", "rtpool-active")
    _lines(
        figure,
        axes,
        [int(case) for case in cases],
        {name: [one(data, case=case, contestant=name)["vs_out"] for case in cases] for name in who},
    )
    axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(case) for case in cases], [f"{int(case):,}" for case in cases])
    axes.set_yticks([1, 2, 5, 10])
    axes.minorticks_off()
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("values of an array, float64")
    axes.set_ylabel("times the version with out=")


def empty(figure: Any, axes: Any, data: Data) -> None:
    cases = list(_case_names(data))
    who = _contestants(data, "numpy-allocator", "rtpool-active")
    _lines(
        figure,
        axes,
        [int(case) for case in cases],
        {name: [one(data, case=case, contestant=name)["median"] * 1e9 for case in cases] for name in who},
    )
    _size_axis(axes, [int(case) for case in cases])
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("bytes asked for")
    axes.set_ylabel("ns, np.empty and its free")


def _bytes(text: str) -> int:
    number, unit = text.split()
    return int(number) << {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[unit]


def core_pairs(figure: Any, axes: Any, data: Data) -> None:
    found = rows(data, suite="pairs")
    cases = list(dict.fromkeys(row["case"] for row in found))
    series = {
        name: [one(data, suite="pairs", case=case, contestant=name)["median"] for case in cases]
        for name in in_order(row["contestant"] for row in found)
    }
    _lines(figure, axes, [_bytes(case) for case in cases], series)
    _size_axis(axes, [_bytes(case) for case in cases])
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("bytes asked for")
    axes.set_ylabel("ns, malloc and free in C++")


def memory(figure: Any, axes: Any, data: Data) -> None:
    figures = data["figures"]
    # The first sample of each process is its start; some end earlier, whose last samples are of an ended process.
    for name in in_order(figures):
        series = [(at, held) for at, held in figures[name]["series"] if held > 0]
        axes.plot([at for at, _ in series], [held for _, held in series], color=COLORS[name], label=NAMES[name],
                  lw=2 if name.startswith("rtpool") else 1.2, zorder=4 if name.startswith("rtpool") else 3)  # fmt: skip
    axes.set_xlabel("seconds; a wave of work, then 15 s of rest")
    axes.set_ylabel("resident MiB")
    axes.set_ylim(bottom=0)
    _legend(figure, axes, 5)


def steady(figure: Any, axes: Any, data: Data) -> None:
    loops = data["loops"]
    who = [name for name in in_order({way for ways in loops.values() for way in ways})]

    def faults(loop: str, name: str) -> float | None:
        of = loops[loop].get(name)
        return None if of is None else float(of["faults"]) / of["iterations"]

    _dots(figure, axes, {loop: names.LOOPS.get(loop, loop) for loop in loops}, who, faults)
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.4)
    axes.set_xticks([0, 0.1, 1, 10, 100, 1000])
    axes.minorticks_off()
    _plain_numbers(axes.xaxis)
    axes.grid(axis="x", visible=True)
    axes.set_xlim(left=-0.02)
    axes.set_xlabel("page faults an iteration, once warm")


def objects(figure: Any, axes: Any, data: Data) -> None:
    titles = [row["loop"] for row in data["rows"]]
    values = [row["own ratio"] for row in data["rows"]]
    axes.barh(range(len(values)), values, color=COLORS["rtpool"], height=0.6)
    for at, value in enumerate(values):
        axes.text(value + 0.01, at, f"{value:.2f}", va="center", fontsize=8)
    axes.axvline(1, color=MUTED, lw=1)
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("time, in times of Python as it is (left is better)", loc="right")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def realtime(figure: Any, axes: Any, data: Data) -> None:
    from .tables.loops import PERCENTILES

    found = data["loop"]["rows"]
    series = {name: [found[name]["work"][p] * 1e3 for p in PERCENTILES] for name in in_order(found)}
    _lines(figure, axes, range(len(PERCENTILES)), series, 3)
    axes.set_xticks(range(len(PERCENTILES)), PERCENTILES)
    axes.axhline(data["arguments"]["period"] * 1e3, color=MUTED, lw=1, ls="--", zorder=2)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10, 20])
    axes.minorticks_off()
    _plain_numbers(axes.yaxis)
    axes.set_ylabel("ms of work; dashed: the period")


def copies(figure: Any, axes: Any, data: Data) -> None:
    found = [row for row in data["sizes"] if row["offset"] == 0 and row["threads"] is None]
    axes.plot([row["bytes"] for row in found], [row["speedup"] for row in found], **_style("rtpool"))
    axes.axhline(1, color=MUTED, lw=1)
    _size_axis(axes, [row["bytes"] for row in found])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes copied")
    axes.set_ylabel("rtpool.copyto, times NumPy's speed")


def shared(figure: Any, axes: Any, data: Data) -> None:
    sizes = data["trips"]["sizes"]
    others = {"SharedMemory": ("^", "tcmalloc"), "SharedArray": ("D", "mimalloc"), "pickle": ("s", "numpy")}
    x = [row["bytes"] for row in sizes]
    axes.plot(x, [row["MB/s"]["rtpool"] for row in sizes], **_style("rtpool"))
    for name, (marker, color) in others.items():
        axes.plot(x, [row["MB/s"][name] for row in sizes], marker=marker, color=COLORS[color], label=name)
    _size_axis(axes, x)
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("bytes of an array")
    axes.set_ylabel("MB/s from process to process")
    _legend(figure, axes)


def trace(figure: Any, axes: Any, data: Data) -> None:
    found = {name: of["cost_ns"] for name, of in data["contestants"].items() if name not in ("numpy", "pool")}
    ours = ("totals", "times", "sites", "stacks")
    axes.barh(range(len(found)), list(found.values()), height=0.6,
              color=[COLORS["rtpool" if name in ours else "numpy"] for name in found])  # fmt: skip
    for at, value in enumerate(found.values()):
        axes.text(value * 1.06, at, f"{value:,.0f} ns", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [names.RECORDERS.get(name, name) for name in found])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(found.values()) * 3)
    _plain_numbers(axes.xaxis)
    axes.set_xlabel("ns that recording adds to np.empty and its free")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def dask(figure: Any, axes: Any, data: Data) -> None:
    found = data["contestants"]
    cases = list(next(iter(found.values()))["cases"])
    marks = ("s", "o", "^", "D", "v", "P")
    colors = ("numpy", "rtpool", "tcmalloc", "mimalloc", "jemalloc", "tuned")
    for name, marker, color in zip(found, marks, colors, strict=False):
        values = [found[name]["cases"][case]["times_dask"]["median"] for case in cases]
        axes.plot(values, range(len(cases)), ls="", marker=marker, color=COLORS[color], label=NAMES.get(name, name))
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes)
    _ratio_axis(axes, "times as fast as Dask's workers as they are (right is better)")


def compiled(figure: Any, axes: Any, data: Data) -> None:
    who = ("numpy", "rtpool", "out", "numba")
    _dots(
        figure, axes, _case_names(data), who, lambda case, name: float(one(data, case=case, contestant=name)["vs_out"])
    )
    _ratio_axis(axes, "time, in times of the version with out=")


class Plot(NamedTuple):
    """What is drawn of which file, how high, and what it says to those who do not see it."""

    result: str
    draw: Callable[[Any, Any, Data], None]
    height: float
    description: str


PLOTS = {
    "frame": Plot("convert", frame, 2.5, "Bars: milliseconds and page faults of a 1080p camera frame, by allocator"),
    "convert": Plot(
        "convert", convert, 3.2, "Dots: time of conversions and of a frame, in times of the version with out="
    ),
    "programs": Plot("programs", programs, 5.4, "Dots: how many times as fast twenty programs run, by allocator"),
    "chains": Plot("chains", chains, 3.2, "Lines: time of arithmetic in the caches, in times of the version with out="),
    "empty": Plot("empty", empty, 3.4, "Lines: nanoseconds of np.empty and its free, by size and allocator"),
    "core-pairs": Plot("core", core_pairs, 3.4, "Lines: nanoseconds of malloc and free, by size and allocator"),
    "memory": Plot("memory", memory, 3.4, "Lines: resident memory over time, by allocator"),
    "steady": Plot("steady", steady, 3.0, "Dots: page faults an iteration of six programs"),
    "objects": Plot("objects", objects, 3.4, "Bars: time of loops of Python objects with arenas from the pool"),
    "realtime": Plot("realtime", realtime, 3.4, "Lines: percentiles of the work of a 1 kHz loop, by allocator"),
    "copies": Plot("copies", copies, 2.8, "Line: speed of rtpool.copyto over NumPy's, by size"),
    "shared": Plot("shared", shared, 3.0, "Lines: throughput of arrays between processes, by size"),
    "trace": Plot("trace", trace, 2.8, "Bars: nanoseconds that recording adds to an allocation"),
    "dask": Plot("dask", dask, 4.2, "Dots: speed of Dask workloads, by allocator of the workers"),
    "compiled": Plot("compiled", compiled, 2.6, "Dots: time of NumPy, of the pool, of out= and of Numba"),
}


def svg(name: str, data: Data) -> str:
    """Draw a plot."""
    plot = PLOTS[name]
    with drawing.settings():
        figure, axes = drawing.new_figure(plot.height)
        plot.draw(figure, axes, data)
        return drawing.to_svg(figure, f"plot-{name}", plot.description)
