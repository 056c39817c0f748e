"""Tables of the files in bench/results. Each takes what the file holds and gives a head and rows of text."""

from __future__ import annotations

from collections.abc import Callable

from . import arrays, core, loops, processes
from .shapes import Data, Table, columns


def once(data: Data) -> Table:
    """Figures that were taken once, while something was changed."""
    return columns(
        data["rows"],
        ("what", lambda row: str(row["what"])),
        ("before", lambda row: str(row.get("before", "-"))),
        ("after", lambda row: str(row["after"])),
    )


# What pages ask for: a name, the file it is made of, the function that makes it.
TABLES: dict[str, tuple[str, Callable[[Data], Table]]] = {
    "convert": ("convert", arrays.convert),
    "convert-times-out": ("convert", arrays.times_out),
    "chains": ("chains", arrays.chains),
    "chains-times-out": ("chains", arrays.times_out),
    "empty": ("empty", arrays.empty),
    "programs": ("programs", arrays.programs),
    "programs-lowest": ("programs_lowest", arrays.programs),
    "core-pairs": ("core", core.core_pairs),
    "core-batches": ("core", core.core_batches),
    "core-threads": ("core", core.core_threads),
    "core-mixed": ("core", core.core_mixed),
    "core-producer": ("core", core.core_producer),
    "core-ahead": ("core", core.core_ahead),
    "core-waste": ("core", core.core_waste),
    "core-scaling": ("scaling", core.core_scaling),
    "core-scaling-pairs": ("scaling", core.core_scaling_pairs),
    "core-idle": ("idle", core.core_idle),
    "threads": ("threads", loops.threads),
    "memory": ("memory", loops.memory),
    "startup": ("startup", loops.startup),
    "start-up": ("startup", loops.start_up),
    "steady": ("steady", loops.steady),
    "objects": ("objects", loops.objects),
    "realtime": ("realtime", loops.realtime),
    "realtime-first": ("realtime", loops.realtime_first),
    "realtime-parts": ("realtime", loops.realtime_parts),
    "copies-loops": ("copies", arrays.copies_loops),
    "copies-tiles": ("copies", arrays.copies_tiles),
    "shared-throughput": ("shared", processes.shared_throughput),
    "shared-fill": ("shared", processes.shared_fill),
    "shared-safety": ("shared", processes.shared_safety),
    "trace": ("trace", loops.trace),
    "dask": ("dask", processes.dask),
    "dask-plugin": ("dask", processes.dask_plugin),
    "dask-transfer": ("dask", processes.dask_transfer),
    "compiled": ("compiled", arrays.compiled),
    "interface": ("interface", core.interface),
    "replay": ("replay", loops.replay),
    "strangers": ("strangers", arrays.strangers),
    "once": ("once", once),
}
