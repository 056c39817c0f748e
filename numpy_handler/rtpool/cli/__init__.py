"""The command line: ``python -m rtpool COMMAND``.

A command is one module of this package with one `Command` class in it; the module's name is the command's, the class's
docstring is its help. Modules that begin with an underscore are no commands. Only the module of the command that was
asked for is imported, so that ``run`` starts a script as fast as Python would.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Sequence

from ._command import Command

__all__ = ["Command", "main"]


def command_names() -> list[str]:
    """Return the names of all commands."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Command:
    """Import the module of a command and make its one command."""
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Command) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define one Command, found {len(classes)}")
    return classes[0]()


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rtpool", description="The memory pool behind NumPy.", epilog="COMMAND --help says more."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        command = load(name)
        text = inspect.cleandoc(command.__doc__ or "")
        sub = subparsers.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Its name and arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0 for success, 1 for a finding or failure the command reports, 2 for wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = command_names()
    asked = [arguments[0]] if arguments and arguments[0] in names else names
    parsed = _parser(asked).parse_args(arguments)
    command: Command = parsed.command
    if command.becomes_the_program:
        return command.run(parsed)
    try:
        return command.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
