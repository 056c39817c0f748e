"""The command `run`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from typing import NoReturn

from .. import _core
from .._pool.default import default_pool
from .._pool.objects import KEEP_VALUE, KEEP_VARIABLE
from .._pool.plan import Plan
from .._startup import command, in_place
from .._startup.in_force import start_up
from .._startup.session import Options, recorded_children
from ._command import Command


class Run(Command):
    """Run an unchanged program with NumPy's memory from a pool, and sum up at its end.

    The whole process is activated at the moment it imports NumPy: every thread, and libc is tuned to keep its
    memory (--malloc keep: not). The arenas of Python's own objects come from the pool as well (--objects keep:
    not); free-threaded Python is started with MIMALLOC_PURGE_DELAY=-1 instead, which makes its own allocator keep
    them. The pool takes its options from the RTPOOL_ variables. Otherwise the program runs as Python itself would
    run it; the exit code is the program's. The summary goes to standard error when all is over.

    The program is a script, directory or zip file, with -m a module, with -c code, or the name of a command: one that
    Python runs (gunicorn app), or any other, whose Pythons are activated then.

    With --children every Python process the program starts is activated, too, and summed up.

    With --leaks the pool is a debug pool (RTPOOL_DEBUG=1), and the summary lists the memory of arrays that the program
    leaves behind, by the line that made it. Programs run slower then.

    With --record FILE every array is in a trace, for the command trace; with --children those of each child are in
    FILE.<pid>.

    With --plan FILE the first run learns what the program needs and writes it there; later runs make it ready before
    they begin.
    """

    becomes_the_program = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument("-m", dest="module", action="store_true", help="the program is a module, as for python -m")
        how.add_argument("-c", dest="code", action="store_true", help="the program is code, as for python -c")
        parser.add_argument("--children", action="store_true", help="activate child processes and sum them up")
        parser.add_argument("--plan", metavar="FILE", help="learn a plan, or make ready what it says")
        parser.add_argument("--leaks", action="store_true", help="list what the program leaves behind, and where from")
        parser.add_argument(
            "--record", metavar="FILE", help="write a trace of all arrays there (see the command trace)"
        )
        parser.add_argument("--stacks", choices=["none", "site", "full"], default="site", help="with --record: places")
        parser.add_argument("--lock", action="store_true", help="lock the process in memory (mlockall)")
        parser.add_argument("--malloc", choices=["tune", "keep"], default="tune", help="libc's malloc (default: tune)")
        parser.add_argument(
            "--objects", choices=["pool", "keep"], default="pool", help="arenas of Python's objects (default: pool)"
        )
        parser.add_argument(
            "--json",
            metavar="FILE",
            help="summary as JSON to FILE (children's beside it), - for standard error",
        )
        parser.add_argument("--quiet", action="store_true", help="print no summary")
        parser.add_argument("program", help="script, directory, zip file or command; with -m a module, with -c code")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")

    def run(self, arguments: argparse.Namespace) -> int:
        try:
            program = command.find(arguments.program, module=arguments.module, code=arguments.code)
            there = start_up()
            if there.in_force:
                # The program's process reads these; here for what is wrong in them. A program that runs in this very
                # process has the default pool made for it, as it asks for one.
                default_pool()
                if arguments.plan is not None and os.path.exists(arguments.plan):
                    Plan.load(arguments.plan)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            print(f"rtpool run: {error}", file=sys.stderr)
            return 2
        options = _options(arguments, children=arguments.children or program.foreign)
        if program.foreign:
            if not there.in_force:
                print(f"rtpool run: {arguments.program} cannot be activated: {there.why_not}", file=sys.stderr)
                return 2
            return command.run_and_wait(program, arguments.arguments, options)
        if not there.in_force:
            if options["summary"]:
                print(f"rtpool run: children are not activated: {there.why_not}", file=sys.stderr)
            in_place.execute(program, arguments.arguments, json.dumps(options))
        _become(program, arguments.arguments, options)


def _options(arguments: argparse.Namespace, *, children: bool) -> Options:
    beside = None if arguments.json in (None, "-") else os.path.abspath(arguments.json)
    summary = None
    if children:
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


def _become(program: command.Program, arguments: list[str], options: Options) -> NoReturn:
    """Go on as the Python that runs the program; its start-up file does the rest."""
    environment = dict(os.environ)
    environment |= {"RTPOOL_RUN": json.dumps(options), "RTPOOL_ACTIVATE": "1"}
    if options["objects"] == "pool" and _core.object_arenas_refusal() == "free-threaded":
        environment.setdefault(KEEP_VARIABLE, KEEP_VALUE)  # read when the process begins
    if options["summary"]:
        environment |= {"RTPOOL_RUN_BEFORE": "1", "RTPOOL_SUMMARY": options["summary"], **recorded_children(options)}
    elif "RTPOOL_ACTIVATE" in os.environ:
        environment["RTPOOL_RUN_BEFORE"] = os.environ["RTPOOL_ACTIVATE"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *command.interpreter_flags(), *program.words, *arguments], environment)
