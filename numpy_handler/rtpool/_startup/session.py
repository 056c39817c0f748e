"""A process that `python -m rtpool run` or RTPOOL_ACTIVATE activates: how it begins, and what it says at its end."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

import _rtpool_start

from .. import _core
from .._handler.activation import activate, serve_objects
from .._pool.debug import by_site
from .._pool.default import default_pool
from .._pool.plan import Plan
from .._pool.pool import Pool
from .._support.sizes import format_size
from .._support.workers import at_end_of_worker, once_set_up_as_worker

if TYPE_CHECKING:
    from .options import Options

SUMMED = ("total_count", "total_bytes", "hits", "misses", "fallbacks", "growths", "kernel_calls")


class Start(Protocol):
    """What `_rtpool_start` knows of this process."""

    mode: str
    run: str | None
    pid: int
    begun: float
    faults_before: tuple[int, int]
    stderr: tuple[int, int] | None

    def faults(self) -> tuple[int, int]: ...


def begin_session(start: Start) -> Session:
    """Activate this process as it was asked for when it started."""
    if start.run is not None:
        options: Options = json.loads(start.run)
        return Session(start, options)
    kept: Literal["pool", "keep"] = "keep" if start.mode == "arrays" else "pool"
    recorded = json.loads(os.environ.get("RTPOOL_RECORD") or "{}")
    return Session(
        start,
        {
            "malloc": "keep" if start.mode == "arrays" else "tune",
            "objects": kept,
            "plan": None,
            "record": recorded.get("path"),
            "stacks": recorded.get("stacks", "site"),
            "leaks": False,
            "lock": False,
            "json": None,
            "quiet": True,
            "summary": os.environ.get("RTPOOL_SUMMARY") or None,
            "keep": True,
        },
    )


class Session:
    """An activated process, from the import of NumPy to what is called last at exit."""

    def __init__(self, start: Start, options: Options) -> None:
        self._start = start
        self._options = options
        self._learning: Any = None
        self._plan: Plan | None = None
        self._ended_in = 0  # the process that has told already
        self._begun = start.begun
        if os.getpid() != start.pid:  # forked before NumPy was imported
            self._begun, start.faults_before = time.monotonic(), (0, 0)
        self._pool = self._activate()
        self._locked = _lock() if options["lock"] else None
        self._before = self._pool.stats()
        if options["record"] is not None:
            self._record(options["record"])
        if options["summary"]:
            os.register_at_fork(after_in_child=self._forked)
            once_set_up_as_worker(self, Session._tell_at_the_end_of_a_worker)
            self._tell_at_the_end_of_a_worker()

    def _record(self, path: str) -> None:
        from .._trace.recording import begin_for_process

        first = self._start.run is not None and os.getpid() == self._start.pid
        if first or self._options["summary"]:
            begin_for_process(path, self._options["stacks"], first=first, children=bool(self._options["summary"]))

    def _activate(self) -> Pool:
        options, debug = self._options, os.environ.get("RTPOOL_DEBUG")
        if options["leaks"]:
            os.environ["RTPOOL_DEBUG"] = "1"
        try:
            pool = activate(default_pool())
            # Nobody need have asked for it: where libc has no such settings the summary says so.
            self._malloc_untuned = options["malloc"] == "tune" and not _core.tune_malloc()
            self._objects_refused = serve_objects(pool) if options["objects"] == "pool" else None
        finally:
            if options["leaks"]:
                os.environ.pop("RTPOOL_DEBUG")
                os.environ |= {} if debug is None else {"RTPOOL_DEBUG": debug}
        if options["plan"] is not None and os.getpid() == self._start.pid:
            if os.path.exists(options["plan"]):
                self._plan = Plan.load(options["plan"])
                pool.prepare(self._plan)
            else:
                self._learning = pool.learn()
                self._learning.__enter__()
        return pool

    # Children.

    def _forked(self) -> None:
        """In a child: what it tells is of itself."""
        self._begun, self._before = time.monotonic(), self._pool.stats()
        self._start.faults_before = (0, 0)
        once_set_up_as_worker(self, Session._tell_at_the_end_of_a_worker)

    def _tell_at_the_end_of_a_worker(self) -> None:
        at_end_of_worker(self.end)

    def end(self) -> None:
        """Tell what happened, once in each process."""
        if self._ended_in == os.getpid():
            return
        self._ended_in = os.getpid()
        if self._start.run is not None and os.getpid() == self._start.pid:
            self._tell()
        elif self._options["summary"]:
            _write_line(self._options["summary"], self._summary())

    def _summary(self) -> dict[str, Any]:
        after = self._pool.stats()
        minor, major = self._start.faults()
        return {
            "seconds": time.monotonic() - self._begun,
            "minor_faults": minor,
            "major_faults": major,
            "pool": (after - self._before)._asdict(),
            "held_bytes": after.capacity_bytes,
            "objects_refused": self._objects_refused,
            "malloc_untuned": self._malloc_untuned,
        }

    def _tell(self) -> None:
        options = self._options
        summary = self._summary()
        if self._locked is not None:
            summary |= {"locked": not self._locked, "lock_refused": self._locked}
        if self._learning is not None:
            self._plan = self._learning.finish()
            if not _failed():
                self._plan.save(options["plan"] or "")
                summary["learned"] = options["plan"]
        summary["plan_bytes"] = self._plan.bytes if self._plan is not None else 0
        if options["leaks"]:
            summary["leaks"] = _leaks(self._pool)
        lines = summary_lines(summary)
        add_children(options, summary, lines)
        _rtpool_start.tell(options, summary, lines, self._start.stderr)


def _failed() -> bool:
    """Whether the program ended by an exception."""
    return getattr(sys, "last_value", None) is not None


def _lock() -> str:
    """Lock the process in memory for good; empty, or why not."""
    from .._realtime import machine

    refused = machine.apply(_core.MachineSettings(), machine.Wanted(None, True, -1, 0, False))
    return str(refused[0]) if refused else ""


def _leaks(pool: Pool) -> list[dict[str, Any]]:
    """The live blocks by the line that made them, once the program's own names and cycles are gone."""
    import gc

    vars(sys.modules["__main__"]).clear()
    gc.collect()
    return [site._asdict() for site in by_site(pool.outstanding())]


# What children write, and its sum.


def _start_of_process() -> int:
    """When this process began, in the kernel's ticks: with the pid its name for good."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def _write_line(name: str, summary: dict[str, Any]) -> None:
    ticks = _start_of_process()
    told = {"pid": os.getpid(), "start": ticks, "program": sys.argv, **summary}
    with open(f"{name}.{os.getpid()}.{ticks}", "w", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def add_children(options: Options, summary: dict[str, Any], lines: list[str]) -> None:
    """Add what the children of a run have told to its summary."""
    if options["summary"]:
        children = gather(options["summary"], keep=options["keep"])
        if not options["keep"]:
            with contextlib.suppress(OSError):  # one that is still running keeps it
                os.rmdir(os.path.dirname(options["summary"]))
        summary["children"] = children
        lines += children_lines(children)


def gather(name: str, *, keep: bool) -> dict[str, Any]:
    """Sum up what children wrote beside `name`."""
    told = []
    for path in sorted(glob.glob(glob.escape(name) + ".*.*")):
        try:
            with open(path, encoding="utf-8") as file:
                told.append(json.load(file))
            if not keep:
                os.unlink(path)
        except (OSError, ValueError):
            continue  # one that is being written: its process lives longer than this one
    return {
        "count": len(told),
        "minor_faults": sum(child["minor_faults"] for child in told),
        "major_faults": sum(child["major_faults"] for child in told),
        "held_bytes": sum(child["held_bytes"] for child in told),
        "pool": {field: sum(child["pool"][field] for child in told) for field in SUMMED},
        "summaries": told,
    }


# As text.


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """What standard error shows of a process."""
    faults = f"{summary['minor_faults']:,} minor and {summary['major_faults']:,} major faults"
    lines = [f"rtpool: {summary['seconds']:.3f} s, {faults}", *_pool_lines(summary), *_object_lines(summary)]
    if summary["malloc_untuned"]:
        lines.append("  malloc      as it is: this libc's takes no settings")
    if "learned" in summary:
        lines.append(f"  plan        {format_size(summary['plan_bytes'])} learned, written to {summary['learned']}")
    elif summary["plan_bytes"]:
        lines.append(f"  plan        {format_size(summary['plan_bytes'])} made ready")
    if summary.get("locked") is not None:
        lines.append(
            "  locked      the whole process" if summary["locked"] else f"  not locked  {summary['lock_refused']}"
        )
    if "leaks" in summary:
        lines += _leak_lines(summary["leaks"])
    return lines


def children_lines(children: dict[str, Any]) -> list[str]:
    """And of its children."""
    if not children["count"]:
        return ["  children    none that imported NumPy and came to their end"]
    faults = f"{children['minor_faults']:,} minor and {children['major_faults']:,} major faults"
    return [f"  children    {children['count']:,}, {faults}", *_pool_lines(children)]


def _pool_lines(summary: dict[str, Any]) -> list[str]:
    pool = summary["pool"]
    return [
        f"  arrays      {pool['total_count']:,} of {format_size(pool['total_bytes'])} together; held"
        f" {format_size(summary['held_bytes'])}",
        f"  requests    {pool['hits']:,} hits, {pool['misses']:,} misses, {pool['fallbacks']:,} passed on,"
        f" {pool['kernel_calls']:,} kernel calls",
    ]


def _object_lines(summary: dict[str, Any]) -> list[str]:
    pool = summary["pool"]
    if summary["objects_refused"]:
        return [f"  objects     {summary['objects_refused']}"]
    requests = pool["object_hits"] + pool["object_misses"]
    if not requests:
        return []
    return [
        f"  objects     {requests:,} arenas, {pool['object_hits']:,} of them kept ones,"
        f" {pool['object_fallbacks']:,} passed on"
    ]


def _leak_lines(leaks: list[dict[str, Any]]) -> list[str]:
    if not leaks:
        return ["  left behind nothing"]
    blocks, size = (sum(leak[field] for leak in leaks) for field in ("blocks", "bytes"))
    lines = [f"  left behind {blocks:,} blocks of {format_size(size)} together"]
    for leak in leaks[:20]:
        lines.append(f"    {format_size(leak['bytes']):>10} in {leak['blocks']:>5,}  {leak['site']}")
    if len(leaks) > 20:
        lines.append(f"    and from {len(leaks) - 20:,} more places")
    return lines
