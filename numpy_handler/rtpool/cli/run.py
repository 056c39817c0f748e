"""The command `run`."""

from __future__ import annotations

import argparse
import json
import os
import sys

from .._pool.default import default_pool
from .._pool.plan import Plan
from .._startup import command, in_place
from .._startup.become import become
from .._startup.in_force import start_up
from .._startup.options import add_arguments, options_of
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
        add_arguments(parser)

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
        options = options_of(arguments, children=arguments.children or program.foreign)
        if program.foreign:
            if not there.in_force:
                print(f"rtpool run: {arguments.program} cannot be activated: {there.why_not}", file=sys.stderr)
                return 2
            return command.run_and_wait(program, arguments.arguments, options)
        if not there.in_force:
            if options["summary"]:
                print(f"rtpool run: children are not activated: {there.why_not}", file=sys.stderr)
            in_place.execute(program, arguments.arguments, json.dumps(options))
        become(program, arguments.arguments, options)
