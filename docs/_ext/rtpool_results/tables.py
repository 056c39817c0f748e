"""Tables of the files in bench/results. Each takes what the file holds and gives a head and rows of text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import names
from .data import NAMES, count, digits, in_order, one, rows, seconds, size


class Table(NamedTuple):
    """Rows under a head; the first cell of a row names it."""

    head: list[str]
    rows: list[list[str]]


Data = Mapping[str, Any]


def _grid(corner: str, cases: Mapping[str, str], who: list[str], cell: Callable[[str, str], str]) -> Table:
    """A row a case, a column a contestant."""
    body = [[title, *(cell(case, name) for name in who)] for case, title in cases.items()]
    return Table([corner, *(NAMES.get(name, name) for name in who)], body)


def _contestants(data: Data, *left_out: str) -> list[str]:
    return [name for name in in_order(row["contestant"] for row in data["rows"]) if name not in left_out]


def _cases(data: Data) -> dict[str, str]:
    return {row["case"]: names.case(row["case"]) for row in data["rows"]}


def convert(data: Data) -> Table:
    """Times of an iteration, page faults in brackets."""
    who = _contestants(data, "numpy-allocator", "rtpool-active")

    def cell(case: str, name: str) -> str:
        row = one(data, case=case, contestant=name)
        return f"{seconds(row['median'])} [{count(row['faults'])}]"

    return _grid("work [page faults]", _cases(data), who, cell)


def times_out(data: Data) -> Table:
    """Times of the version with `out=`, with means and worst cases."""
    who = _contestants(data)
    ratios = {name: [row["vs_out"] for row in rows(data, contestant=name)] for name in who}
    table = _grid(
        "times out=", _cases(data), who, lambda case, name: f"{one(data, case=case, contestant=name)['vs_out']:.2f}"
    )
    table.rows.append(["geometric mean", *(f"{statistics.geometric_mean(ratios[name]):.2f}" for name in who)])
    table.rows.append(["worst", *(f"{max(ratios[name]):.2f}" for name in who)])
    return table


def chains(data: Data) -> Table:
    """Ten operations on arrays that fit the caches."""
    who = _contestants(data, "numpy-allocator")
    return _grid(
        "array", _cases(data), who, lambda case, name: seconds(one(data, case=case, contestant=name)["median"])
    )


def empty(data: Data) -> Table:
    """`np.empty` and its free."""
    who = _contestants(data)
    cases = {case: size(int(case)) for case in _cases(data)}
    return _grid("bytes", cases, who, lambda case, name: seconds(one(data, case=case, contestant=name)["median"]))


def programs(data: Data) -> Table:
    """Twenty programs: times as fast as NumPy's default."""
    who = _contestants(data, "numpy", "numpy-allocator")

    def speed(case: str, name: str) -> float:
        return 1 / float(one(data, case=case, contestant=name)["vs_numpy"])

    table = _grid("program", _cases(data), who, lambda case, name: f"{speed(case, name):.2f}")
    for title, combine in (("geometric mean", statistics.geometric_mean), ("lowest", min), ("highest", max)):
        table.rows.append([title, *(f"{combine([speed(case, name) for case in _cases(data)]):.2f}" for name in who)])
    table.head.insert(1, "NumPy")
    for row, case in zip(table.rows, _cases(data), strict=False):
        row.insert(1, seconds(one(data, case=case, contestant="numpy")["median"]))
    for row in table.rows[len(_cases(data)) :]:
        row.insert(1, "")
    return table


def core_pairs(data: Data) -> Table:
    """malloc and free of one block, in ns."""
    return _core(data, "pairs", "bytes", lambda row: digits(row["median"]))


def core_batches(data: Data) -> Table:
    """32 blocks allocated, then freed."""
    return _core(data, "batches", "bytes", lambda row: digits(row["median"]))


def core_threads(data: Data) -> Table:
    """Two threads against one: times the throughput."""
    return _core(data, "threads", "blocks", lambda row: f"{row['scaling']:.2f}")


def _core(data: Data, suite: str, corner: str, text: Callable[[dict[str, Any]], str]) -> Table:
    found = rows(data, suite=suite)
    who = in_order(row["contestant"] for row in found)
    cases = {row["case"]: row["case"] for row in found}
    return _grid(corner, cases, who, lambda case, name: text(one(data, suite=suite, case=case, contestant=name)))


def core_mixed(data: Data) -> Table:
    """Mixed sizes with 64 alive, a free and a malloc."""
    found = rows(data, suite="mixed", case="64 alive, free + malloc")
    figures = ("mean", "p50", "p99", "p99.99")
    return Table(
        ["ns", *figures, "longest"],
        [
            [NAMES[row["contestant"]], *(digits(row[figure]) for figure in figures), seconds(row["max"] / 1e9)]
            for row in sorted(found, key=lambda row: in_order(NAMES).index(row["contestant"]))
        ],
    )


def core_producer(data: Data) -> Table:
    """Blocks made by one thread and freed by another."""
    found = rows(data, suite="producer_consumer")
    return Table(
        ["ns a block", "median", "the free alone", "its longest", "MiB grown"],
        [
            [
                NAMES[row["contestant"]],
                digits(row["median"]),
                digits(row["free_p50"]),
                seconds(row["free_max"] / 1e9),
                digits(row["resident_growth"]),
            ]
            for row in found
        ],
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


def memory(data: Data) -> Table:
    """Resident memory above the start, at once and after a rest."""
    figures = data["figures"]
    who = in_order(figures)
    cases = {row["work"]: row["work"] for row in figures[who[0]]["rows"]}

    def cell(case: str, name: str) -> str:
        row = next(row for row in figures[name]["rows"] if row["work"] == case)
        return f"{row['at_once']:,.0f} / {row['rested']:,.0f}"

    return _grid("MiB at once / rested", cases, who, cell)


def startup(data: Data) -> Table:
    """What a short script pays."""
    return Table(
        ["script", "wall time", "more", "processor, more", "resident", "more", "the call"],
        [
            [
                row["case"],
                f"{row['milliseconds']:.0f} ms",
                f"{row['milliseconds_more']:.1f} ms",
                f"{row['processor_milliseconds_more']:.1f} ms",
                f"{row['resident_mib']:.1f} MiB",
                f"{row['resident_mib_more']:.1f} MiB",
                f"{row['call_milliseconds'] * 1e3:.0f} us" if "call_milliseconds" in row else "-",
            ]
            for row in data["rows"]
        ],
    )


def steady(data: Data) -> Table:
    """Whole programs, once warm: page faults and calls for memory of an iteration, and the most the process held."""
    loops = data["loops"]
    who = in_order({way for ways in loops.values() for way in ways})

    def cell(loop: str, name: str) -> str:
        of = loops[loop].get(name)
        if of is None:
            return "-"
        faults, calls = of["faults"] / of["iterations"], sum(of["calls"].values()) / of["iterations"]
        return f"{count(faults)} / {count(calls)} / {of['peak_kib'] / 1024:.0f} MiB"

    return _grid("faults / calls / peak", {loop: names.LOOPS.get(loop, loop) for loop in loops}, who, cell)


def objects(data: Data) -> Table:
    """Loops of Python's objects."""
    return Table(
        ["loop", "time, of 1.00", "page faults", "with the pool", "peak MiB", "with the pool"],
        [
            [
                row["loop"],
                f"{row['own ratio']:.2f}",
                count(row["keep faults"]),
                count(round(row["pool faults"])),
                f"{row['keep peak MiB']:.1f}",
                f"{row['pool peak MiB']:.1f}",
            ]
            for row in data["rows"]
        ],
    )


PERCENTILES = ("p50", "p90", "p99", "p99.9", "p99.99", "max")


def realtime(data: Data) -> Table:
    """A loop of 1 kHz: how long an iteration takes."""
    found = data["loop"]["rows"]
    return Table(
        ["ms", *PERCENTILES, "overruns", "page faults"],
        [
            [
                NAMES[name],
                *(f"{found[name]['work'][p] * 1e3:.2f}" for p in PERCENTILES),
                f"{found[name]['overruns']:,} of {found[name]['iterations']:,}",
                count(found[name]["minor_faults"]),
            ]
            for name in in_order(found)
        ],
    )


def realtime_first(data: Data) -> Table:
    """The first iteration of a program, times the median one."""
    found = data["first"]
    return Table(
        ["", "first iteration", "median", "first / median", "after a pause of 50 ms / median", "page faults in 300"],
        [
            [
                names.FIRST.get(name, name),
                seconds(of["first"]),
                seconds(of["median"]),
                f"{of['first_to_median']:.2f}",
                f"{of['after_pause_to_median']:.2f}",
                count(of["faults_in_300"]),
            ]
            for name, of in found.items()
        ],
    )


def realtime_parts(data: Data) -> Table:
    """What the parts of a section cost."""
    titles = {
        "handler": "entering and leaving `rtpool.handler()`",
        "section, nothing asked for": "entering and leaving a section, nothing asked for",
        "recording an iteration": "recording an iteration",
    }
    body = [[titles.get(name, name), seconds(value)] for name, value in data["entering"].items()]
    body += [
        [f'worst iteration of a loop full of garbage, gc="{name}"', seconds(value)]
        for name, value in data["garbage"].items()
    ]
    body += [[f"4 MiB: {name}", seconds(value)] for name, value in data["zeros"].items()]
    body.append(
        [
            f"kernel calls for memory in {data['trace']['seconds']:g} s of the loop (strace)",
            count(data["trace"]["memory_calls"]),
        ]
    )
    return Table(["what", "figure"], body)


def copies_loops(data: Data) -> Table:
    """Loops that copy an image a call: times NumPy's speed."""
    return Table(
        ["loop", "NumPy", "rtpool.copyto", "times NumPy's speed", "half of all rounds"],
        [
            [
                line["loop"],
                f"{line['milliseconds']['numpy assignment']:.1f} ms",
                f"{line['milliseconds']['rtpool.copyto']:.1f} ms",
                f"{line['speedup']:.2f}",
                f"{line['quarters'][0]:.2f} to {line['quarters'][1]:.2f}",
            ]
            for line in data["loops"]
        ],
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


def shared_throughput(data: Data) -> Table:
    """Arrays sent from process to process, MB/s."""
    sizes = data["trips"]["sizes"]
    who = [name for name in sizes[0]["MB/s"] if name != "pipe"]
    return Table(
        ["MB/s", *(NAMES.get(name, name) for name in who)],
        [[size(row["bytes"]), *(f"{row['MB/s'][name]:,}" for name in who)] for row in sizes],
    )


def shared_fill(data: Data) -> Table:
    """Making and filling 100,000 int32 that another process can see."""
    skipped = ("ratio", "target")
    body = [[name, seconds(value / 1e9)] for name, value in data["fill"].items() if name not in skipped]
    return Table(["way", "time"], body)


def shared_safety(data: Data) -> Table:
    """A million frames, and processes killed at random."""
    growth, soak = data["growth"], data["soak"]
    return Table(
        ["what", "figure"],
        [
            ["frames handed to another process", f"{growth['frames']:,}"],
            ["of these, times the pool grew", count(growth["growths"])],
            ["blocks lost", count(growth["in_flight"])],
            [f"processes killed at random in {soak['seconds']:g} s", f"{sum(soak['kills'].values()):,}"],
            ["frames checked", f"{soak['frames checked by consumers']:,}"],
            ["damaged frames", count(soak["damaged frames"])],
            ["blocks left", count(soak["blocks left"])],
            ["names left in /dev/shm", count(len(soak["left in /dev/shm"]))],
        ],
    )


def trace(data: Data) -> Table:
    """What recording costs."""
    found = data["contestants"]
    return Table(
        ["recorded by", "a pair of np.empty and free", "of it the recording", "bytes an event"],
        [
            [
                names.RECORDERS.get(name, name),
                f"{of['ns']:,.0f} ns",
                "-" if name in ("numpy", "pool") else f"{of['cost_ns']:,.0f} ns",
                f"{of['bytes_an_event']:.1f}" if of["bytes_an_event"] >= 0.1 else "-",
            ]
            for name, of in found.items()
        ],
    )


def dask(data: Data) -> Table:
    """Work of a Dask cluster, times as fast as with the workers as they are."""
    found = data["contestants"]
    cases = list(next(iter(found.values()))["cases"])
    who = list(found)
    body = [[case, *(f"{found[name]['cases'][case]['times_dask']['median']:.2f}" for name in who)] for case in cases]
    body.append(["unmanaged memory after 5 s, MiB", *(count(found[name]["unmanaged_mib"]) for name in who)])
    body.append(["spilled, MiB", *(count(found[name]["spilled_bytes"] / (1 << 20)) for name in who)])
    body.append(["pauses", *(count(found[name]["pauses"]) for name in who)])
    return Table(["work", *(NAMES.get(name, name) for name in who)], body)


def dask_plugin(data: Data) -> Table:
    """The same with rtpool's plugin alone, by the size of chunks, with the least and the most of the rounds."""
    titles = {
        "temporaries": "element by element, seven operations",
        "overlap": "`map_overlap`",
        "rechunk": "`rechunk`",
        "reduce": "standard deviation",
        "store": "storing",
    }
    cases = data["contestants"]["RtpoolPlugin"]["cases"]
    sizes = list(dict.fromkeys(case.partition(":")[2] for case in cases))

    def cell(work: str, size: str) -> str:
        times = cases[f"{work}:{size}"]["times_dask"]
        return f"{times['median']:.2f} ({times['least']:.2f} to {times['most']:.2f})"

    return Table(
        ["work", *(f"chunks of {size.replace('MiB', ' MiB')}" for size in sizes)],
        [[title, *(cell(work, size) for size in sizes)] for work, title in titles.items()],
    )


def dask_transfer(data: Data) -> Table:
    """1 GiB from worker to worker."""
    return Table(
        ["array of 1 GiB", "median time"],
        [[name, seconds(statistics.median(took))] for name, took in data["transfer_of_1_gib_s"].items()],
    )


def compiled(data: Data) -> Table:
    """The same function as NumPy runs it, with the pool, with `out=`, and compiled by Numba."""
    who = ("numpy", "rtpool", "out", "numba")
    table = _grid(
        "work", _cases(data), list(who), lambda case, name: seconds(one(data, case=case, contestant=name)["median"])
    )
    table.head.append("Numba's first call")
    for row, case in zip(table.rows, _cases(data), strict=True):
        row.append(seconds(one(data, case=case, contestant="numba")["first"]))
    return table


def interface(data: Data) -> Table:
    """An allocation and its release through the table of the C interface, and without."""
    counted = {size: f"{of['internal']:.0f} and {of['interface']:.0f}" for size, of in data["instructions"].items()}
    return Table(
        ["bytes", "within rtpool", "through the table", "more", "instructions"],
        [
            [
                row["size"],
                f"{row['internal']:.2f} ns",
                f"{row['interface']:.2f} ns",
                f"{row['more']:.2f} ns",
                counted.get(row["size"], ""),
            ]
            for row in data["pairs_ns"]
        ],
    )


def replay(data: Data) -> Table:
    """Recorded programs, replayed: page faults of the first pass and the third, most resident memory."""
    found = data["traces"]
    who = in_order(next(iter(found.values()))["contestants"])

    def cell(program: str, name: str) -> str:
        of = found[program]["contestants"].get(name)
        if of is None:
            return "-"
        return f"{of['first']['faults']:,} / {of['last']['faults']:,} / {of['first']['peak'] / (1 << 20):.0f} MiB"

    return _grid("faults, first / third / peak", {program: names.case(program) for program in found}, who, cell)


def once(data: Data) -> Table:
    """Figures that were taken once, while something was changed."""
    return Table(
        ["what", "before", "after"],
        [[row["what"], row.get("before", "-"), row["after"]] for row in data["rows"]],
    )


# What pages ask for: a name, the file it is made of, the function that makes it.
def strangers(data: Data) -> Table:
    """Programs of others as they are, and after what their recordings named was changed."""
    body = []
    for program in data["programs"].values():
        versions = [program, *filter(None, [program.get("changed")])]
        cells = [program["source"]]
        for key in ("arrays", "bytes", "temporaries", "peak"):
            cells.append(" → ".join(f"{of[key]:,}" if isinstance(of[key], int) else of[key] for of in versions))
        body.append(cells)
    return Table(["program", "arrays", "bytes made", "temporaries", "peak"], body)


TABLES: dict[str, tuple[str, Callable[[Data], Table]]] = {
    "convert": ("convert", convert),
    "convert-times-out": ("convert", times_out),
    "chains": ("chains", chains),
    "chains-times-out": ("chains", times_out),
    "empty": ("empty", empty),
    "programs": ("programs", programs),
    "programs-lowest": ("programs_lowest", programs),
    "core-pairs": ("core", core_pairs),
    "core-batches": ("core", core_batches),
    "core-threads": ("core", core_threads),
    "core-mixed": ("core", core_mixed),
    "core-producer": ("core", core_producer),
    "core-ahead": ("core", core_ahead),
    "core-waste": ("core", core_waste),
    "memory": ("memory", memory),
    "startup": ("startup", startup),
    "steady": ("steady", steady),
    "objects": ("objects", objects),
    "realtime": ("realtime", realtime),
    "realtime-first": ("realtime", realtime_first),
    "realtime-parts": ("realtime", realtime_parts),
    "copies-loops": ("copies", copies_loops),
    "copies-tiles": ("copies", copies_tiles),
    "shared-throughput": ("shared", shared_throughput),
    "shared-fill": ("shared", shared_fill),
    "shared-safety": ("shared", shared_safety),
    "trace": ("trace", trace),
    "dask": ("dask", dask),
    "dask-plugin": ("dask", dask_plugin),
    "dask-transfer": ("dask", dask_transfer),
    "compiled": ("compiled", compiled),
    "interface": ("interface", interface),
    "replay": ("replay", replay),
    "strangers": ("strangers", strangers),
    "once": ("once", once),
}
