"""Becoming the program that `run` runs: this process goes on as the Python of the program.

``python -m rtpool run`` imports the package before its command line is looked at. The program imports NumPy itself, so
that `at_once` does not do so for it: a process of `run` imports NumPy once, when the program does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from typing import NoReturn

from . import command
from .in_force import start_up
from .options import Options, add_arguments, options_of, recorded_children


def become(program: command.Program, arguments: list[str], options: Options) -> NoReturn:
    """Go on as the Python that runs the program; its start-up file does the rest."""
    environment = dict(os.environ)
    environment |= {"RTPOOL_RUN": json.dumps(options), "RTPOOL_ACTIVATE": "1"}
    if options["objects"] == "pool" and "t" in sys.abiflags:
        from .. import _core
        from .._pool.objects import KEEP_VALUE, KEEP_VARIABLE

        if _core.object_arenas_refusal() == "free-threaded":
            environment.setdefault(KEEP_VARIABLE, KEEP_VALUE)  # read when the process begins
    if options["summary"]:
        environment |= {"RTPOOL_RUN_BEFORE": "1", "RTPOOL_SUMMARY": options["summary"], **recorded_children(options)}
    elif "RTPOOL_ACTIVATE" in os.environ:
        environment["RTPOOL_RUN_BEFORE"] = os.environ["RTPOOL_ACTIVATE"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *command.interpreter_flags(), *program.words, *arguments], environment)


class _Doubt(Exception):
    """What the command line is to look at."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Doubt(message)


def at_once() -> None:
    """Become the program where nothing is in doubt, else return: `rtpool.cli.run` does it then, or says what is wrong.

    In doubt are options that the pool is to be asked about (RTPOOL_ variables, a plan, a limit of address space),
    programs that are not this Python's, and a start-up file that is not in force.
    """
    if sys.argv[:2] != ["-m", "run"] or command.named_by_option() is None:
        return
    if any(name.startswith("RTPOOL_") and name != "RTPOOL_ACTIVATE" for name in os.environ):
        return
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    parser = _Parser(add_help=False)
    add_arguments(parser)
    try:
        arguments = parser.parse_args(sys.argv[2:])
        program = command.find(arguments.program, module=arguments.module, code=arguments.code)
    except (_Doubt, OSError, ValueError):
        return
    if program.foreign or arguments.plan is not None or not start_up().in_force:
        return
    become(program, arguments.arguments, options_of(arguments, children=arguments.children))
