"""Several processes: shared memory, and the workers of Dask."""

from __future__ import annotations

import statistics

from ..data import NAMES, count, seconds, size
from .shapes import Data, Table, columns


def shared_throughput(data: Data) -> Table:
    """Arrays sent from process to process, MB/s."""
    sizes = data["trips"]["sizes"]
    who = [name for name in sizes[0]["MB/s"] if name != "pipe"]
    return columns(
        sizes,
        ("MB/s", lambda row: size(row["bytes"])),
        *((NAMES.get(name, name), lambda row, name=name: f"{row['MB/s'][name]:,}") for name in who),
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
