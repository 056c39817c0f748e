"""The command `replay`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from typing import Any

from .. import _core
from .._replay import compare, peers, render, watch
from .._replay.script import Script, script_of
from .._support.sizes import format_size
from .._trace.events import TraceError
from .._trace.trace import Trace
from ._command import Command
from ._machine import describe
from ._progress import Progress

_WORDS: dict[str, Any] = {"true": True, "yes": True, "false": False, "no": False, "none": None}


class Replay(Command):
    """Do again what a trace says, without the program: in a pool, and in other allocators.

    The sizes, the threads and the order are those of the recording: a block that another thread frees is waited for,
    different blocks keep their order to within some hundred operations. A byte is written in every page. Each
    contestant has a process of its own, in which everything is done twice (--passes), so that the first pass shows what
    the start costs and the last one what goes on.

    Page faults, kernel calls, misses and resident memory come first, times second: they hold the replay's own
    bookkeeping, which is measured apart, and depend on the machine.

    Other allocators serve through malloc, calloc, realloc and free of a process that is started with them (LD_PRELOAD).
    Beside them stands the default pool; with --pool instead: options of Pool such as "size=64MiB,huge_pages=no", or
    "fit", the smallest pool and plan that this trace fits.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="a trace: of rtpool.record, or of python -m rtpool run --record")
        parser.add_argument(
            "--pool",
            action="append",
            metavar="OPTIONS",
            help='a pool to compare; may be given again ("fit", "default")',
        )
        parser.add_argument("--plan", metavar="FILE", help="make a plan ready in the pools of --pool before they begin")
        parser.add_argument(
            "--against", metavar="NAMES", default="", help=f"other allocators, with commas: {', '.join(peers.NAMES)}"
        )
        parser.add_argument("--passes", type=int, default=2, help="how often a process does all of it (default: 2)")
        parser.add_argument("--rounds", type=int, default=3, help="processes of each contestant, in turns (default: 3)")
        parser.add_argument("--no-write", action="store_true", help="do not write to the pages")
        parser.add_argument("--no-calls", action="store_true", help="do not count kernel calls")
        parser.add_argument("--force", action="store_true", help="also where the machine has too little memory for it")
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")

    def run(self, arguments: argparse.Namespace) -> int:
        if arguments.passes < 1 or arguments.rounds < 1:
            return _wrong("--passes and --rounds are at least 1")
        names = [name.strip() for name in arguments.against.split(",") if name.strip()]
        if unknown := [name for name in names if name not in peers.NAMES]:
            return _wrong(f"no such allocator: {', '.join(unknown)}; there are {', '.join(peers.NAMES)}")
        with tempfile.TemporaryDirectory(prefix="rtpool-replay-") as folder:
            try:
                trace = Trace.load(arguments.file)
                script = script_of(trace.file)
                contestants = _pools(arguments, trace, folder)
            except (OSError, TraceError) as error:
                return _wrong(f"{arguments.file}: {error}")
            except ValueError as error:
                return _wrong(str(error))
            there = _core.available_memory()
            if not arguments.no_write and not arguments.force and script.peak_bytes > 0.8 * there:
                return _wrong(
                    f"{format_size(script.peak_bytes)} are alive at once, and {format_size(there)} of memory are there:"
                    " --force to do it all the same, --no-write to leave the pages alone"
                )
            script.save(folder)
            contestants += [compare.peer(name) for name in names]
            return self._compare(arguments, script, folder, contestants)

    def _compare(
        self, arguments: argparse.Namespace, script: Script, folder: str, contestants: list[compare.Contestant]
    ) -> int:
        missing = {one.name: one.missing for one in contestants if one.missing}
        taking_part = [one for one in contestants if not one.missing]
        by = "" if arguments.no_calls else watch.tracer()
        progress = Progress(len(taking_part) * (arguments.rounds + (by == "strace")))
        try:
            outcomes = compare.compare(
                script, folder, taking_part, write=not arguments.no_write, passes=arguments.passes,
                rounds=arguments.rounds, by=by, step=progress.step,
            )  # fmt: skip
            own = compare.bookkeeping(script, folder)
        except compare.ReplayError as error:
            progress.close()
            print(f"rtpool replay: {error}", file=sys.stderr)
            return 1
        progress.close()
        if arguments.json:
            print(json.dumps(as_dict(script, outcomes, missing, by, own) | {"machine": describe()}))
        else:
            print(render.head(script), "", render.table(outcomes, missing, script, by, own), sep="\n")
        return 0


def as_dict(
    script: Script, outcomes: list[compare.Outcome], missing: dict[str, str], by: str, own: float
) -> dict[str, Any]:
    """All figures as plain values."""
    return {
        "operations": script.operations,
        "allocations": script.allocations,
        "threads": script.recorded_threads,
        "peak_bytes": script.peak_bytes,
        "unmatched": script.unmatched,
        "calls_counted_by": by,
        "bookkeeping_ns": own,
        "contestants": {
            one.name: {"first": one.first._asdict(), "last": one.last._asdict(), "prepared": one.prepared}
            for one in outcomes
        },
        "missing": missing,
    }


def _wrong(text: str) -> int:
    print(f"rtpool replay: {text}", file=sys.stderr)
    return 2


def _pools(arguments: argparse.Namespace, trace: Trace, folder: str) -> list[compare.Contestant]:
    """The pools that --pool asks for."""
    found = []
    plan = None if arguments.plan is None else os.path.abspath(arguments.plan)
    for text in arguments.pool or ["default"]:
        if text == "fit":
            fit = trace.fit()
            path = os.path.join(folder, "fit.json")
            fit.plan.save(path)
            found.append(compare.pool("pool fit", {"size": fit.bytes, "limit": fit.bytes}, path))
        elif text == "default":
            found.append(compare.pool("rtpool", None, plan))
        else:
            found.append(compare.pool(f"pool {text}", _options(text), plan))
    return found


def _options(text: str) -> dict[str, Any]:
    """Options of `Pool` from "size=64MiB,huge_pages=no"."""
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name.isidentifier() and equals and value):
            raise ValueError(
                f'--pool takes options such as "size=64MiB,huge_pages=no", "fit" or "default", not {text!r}'
            )
        options[name] = _WORDS[value.lower()] if value.lower() in _WORDS else int(value) if value.isdigit() else value
    return options
