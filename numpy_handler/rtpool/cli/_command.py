"""What a command of ``python -m rtpool`` is."""

from __future__ import annotations

import abc
import argparse


class Command(abc.ABC):
    """One command: its first docstring line is the help in the list, the whole docstring its own help."""

    becomes_the_program = False  # how it ends, by an exception too, is the program's business

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027 - a command may have none
        """Add the command's options."""

    @abc.abstractmethod
    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""
