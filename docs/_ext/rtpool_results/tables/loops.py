"""Programs and loops as wholes: their start, their memory, their deadlines, their recordings."""

from __future__ import annotations

from .. import names
from ..data import NAMES, count, in_order, seconds
from .shapes import Data, Table, columns, grid


def memory(data: Data) -> Table:
    """Resident memory above the start, at once and after a rest."""
    figures = data["figures"]
    who = in_order(figures)
    cases = {row["work"]: row["work"] for row in figures[who[0]]["rows"]}

    def cell(case: str, name: str) -> str:
        row = next(row for row in figures[name]["rows"] if row["work"] == case)
        return f"{row['at_once']:,.0f} / {row['rested']:,.0f}"

    return grid("MiB at once / rested", cases, who, cell)


def threads(data: Data) -> Table:
    """NumPy work in several threads, times the throughput by hand with out=."""
    found = data["rows"]
    cases = {f"{row['size']}, {row['threads']}": f"{row['size']}, {row['threads']}" for row in found}
    by = {(f"{row['size']}, {row['threads']}", row["contestant"]): row for row in found}
    who = in_order(row["contestant"] for row in found if row["contestant"] != "out")
    return grid("an image, threads", cases, who, lambda case, name: f"{by[case, name]['of_out']:.2f}")


def startup(data: Data) -> Table:
    """What a short script pays."""
    return columns(
        data["rows"],
        ("script", lambda row: str(row["case"])),
        ("wall time", lambda row: f"{row['milliseconds']:.0f} ms"),
        ("more", lambda row: f"{row['milliseconds_more']:.1f} ms"),
        ("processor, more", lambda row: f"{row['processor_milliseconds_more']:.1f} ms"),
        ("resident", lambda row: f"{row['resident_mib']:.1f} MiB"),
        ("more", lambda row: f"{row['resident_mib_more']:.1f} MiB"),
        ("the call", lambda row: f"{row['call_milliseconds'] * 1e3:.0f} us" if "call_milliseconds" in row else "-"),
    )


def start_up(data: Data) -> Table:
    """What the start-up file costs a Python that does not import NumPy."""
    return columns(
        data["start_up"],
        ("a Python that does not import NumPy", lambda row: str(row["case"])),
        ("median", lambda row: f"{row['microseconds']:.0f} us"),
        ("most", lambda row: f"{row['microseconds_most']:.0f} us"),
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

    return grid("faults / calls / peak", {loop: names.LOOPS.get(loop, loop) for loop in loops}, who, cell)


def objects(data: Data) -> Table:
    """Loops of Python's objects."""
    return columns(
        data["rows"],
        ("loop", lambda row: str(row["loop"])),
        ("time, of 1.00", lambda row: f"{row['own ratio']:.2f}"),
        ("page faults", lambda row: count(row["keep faults"])),
        ("with the pool", lambda row: count(round(row["pool faults"]))),
        ("peak MiB", lambda row: f"{row['keep peak MiB']:.1f}"),
        ("with the pool", lambda row: f"{row['pool peak MiB']:.1f}"),
    )


PERCENTILES = ("p50", "p90", "p99", "p99.9", "p99.99", "max")


def realtime(data: Data) -> Table:
    """A loop of 1 kHz: how long an iteration takes."""
    found = data["loop"]["rows"]
    return columns(
        in_order(found),
        ("ms", lambda name: NAMES[name]),
        *((p, lambda name, p=p: f"{found[name]['work'][p] * 1e3:.2f}") for p in PERCENTILES),
        ("overruns", lambda name: f"{found[name]['overruns']:,} of {found[name]['iterations']:,}"),
        ("page faults", lambda name: count(found[name]["minor_faults"])),
    )


def realtime_first(data: Data) -> Table:
    """The first iteration of a program, times the median one."""
    found = data["first"]
    return columns(
        found,
        ("", lambda name: names.FIRST.get(name, name)),
        ("first iteration", lambda name: seconds(found[name]["first"])),
        ("median", lambda name: seconds(found[name]["median"])),
        ("first / median", lambda name: f"{found[name]['first_to_median']:.2f}"),
        ("after a pause of 50 ms / median", lambda name: f"{found[name]['after_pause_to_median']:.2f}"),
        ("page faults in 300", lambda name: count(found[name]["faults_in_300"])),
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


def trace(data: Data) -> Table:
    """What recording costs."""
    found = data["contestants"]

    def cost(name: str) -> str:
        return "-" if name in ("numpy", "pool") else f"{found[name]['cost_ns']:,.0f} ns"

    def event_bytes(name: str) -> str:
        of = found[name]["bytes_an_event"]
        return f"{of:.1f}" if of >= 0.1 else "-"

    return columns(
        found,
        ("recorded by", lambda name: names.RECORDERS.get(name, name)),
        ("a pair of np.empty and free", lambda name: f"{found[name]['ns']:,.0f} ns"),
        ("of it the recording", cost),
        ("bytes an event", event_bytes),
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

    return grid("faults, first / third / peak", {program: names.case(program) for program in found}, who, cell)
