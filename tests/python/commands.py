"""Commands of `python -m rtpool`, for tests to which an interpreter of their own makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest


class Ended(NamedTuple):
    """What a command came to."""

    code: int | str | None
    out: str
    err: str


Command = Callable[..., Ended]


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Run a command in this process."""
    from rtpool.cli import main

    capsys.readouterr()
    code: int | str | None
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse
        code = end.code
    return Ended(code, *capsys.readouterr())
