"""What `run` is asked for, and how it travels to the process that does it."""

from __future__ import annotations

import argparse
import json
import os
from typing import Literal, TypedDict


class Options(TypedDict):
    """What `run` was asked for; how it travels to the process that does it."""

    malloc: Literal["tune", "keep"]
    objects: Literal["pool", "keep"]
    plan: str | None  # an absolute path, as are the others: the program may leave the working directory
    record: str | None
    stacks: Literal["none", "site", "full"]
    leaks: bool
    lock: bool
    json: str | None
    quiet: bool
    summary: str | None  # children write to this name with their pid and start behind it
    keep: bool  # what they have written, once it is summed up


def recorded_children(options: Options) -> dict[str, str]:
    """What children find in their environment if each is to be recorded, to a file of its own."""
    if options["record"] is None:
        return {}
    return {"RTPOOL_RECORD": json.dumps({"path": options["record"], "stacks": options["stacks"]})}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `run`."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-m", dest="module", action="store_true", help="the program is a module, as for python -m")
    how.add_argument("-c", dest="code", action="store_true", help="the program is code, as for python -c")
    parser.add_argument("--children", action="store_true", help="activate child processes and sum them up")
    parser.add_argument("--plan", metavar="FILE", help="learn a plan, or make ready what it says")
    parser.add_argument("--leaks", action="store_true", help="list what the program leaves behind, and where from")
    parser.add_argument("--record", metavar="FILE", help="write a trace of all arrays there (see the command trace)")
    parser.add_argument("--stacks", choices=["none", "site", "full"], default="site", help="with --record: places")
    parser.add_argument("--lock", action="store_true", help="lock the process in memory (mlockall)")
    parser.add_argument("--malloc", choices=["tune", "keep"], default="tune", help="libc's malloc (default: tune)")
    parser.add_argument(
        "--objects", choices=["pool", "keep"], default="pool", help="arenas of Python's objects (default: pool)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="summary as JSON to FILE (children's beside it), - for standard error"
    )
    parser.add_argument("--quiet", action="store_true", help="print no summary")
    parser.add_argument("program", help="script, directory, zip file or command; with -m a module, with -c code")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")


def options_of(arguments: argparse.Namespace, *, children: bool) -> Options:
    """What the arguments come to; with `children`, where these are to say what they came to."""
    beside = None if arguments.json in (None, "-") else os.path.abspath(arguments.json)
    summary = None
    if children:
        import tempfile

        summary = beside or os.path.join(tempfile.mkdtemp(prefix="rtpool-run-"), "summary")
    return {
        "malloc": arguments.malloc,
        "objects": arguments.objects,
        "plan": None if arguments.plan is None else os.path.abspath(arguments.plan),
        "record": None if arguments.record is None else os.path.abspath(arguments.record),
        "stacks": arguments.stacks,
        "leaks": arguments.leaks,
        "lock": arguments.lock,
        "json": beside or arguments.json,
        "quiet": arguments.quiet,
        "summary": summary,
        "keep": beside is not None,
    }
