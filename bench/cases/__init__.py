"""What is measured. A case is `suite:name`; `build` makes its inputs and returns one iteration as a callable."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

SUITES = ("convert", "empty", "chains", "programs")


def names(suite: str) -> list[str]:
    """Return the names of a suite's cases, without importing what they need."""
    found: list[str] = importlib.import_module(f"cases.{suite}").NAMES
    return [f"{suite}:{name}" for name in found]


def inner_iterations(case: str) -> int:
    """How often one call of an iteration does the work: very short work is repeated inside."""
    suite = importlib.import_module(f"cases.{case.partition(':')[0]}")
    return int(getattr(suite, "INNER", 1))


def build(case: str, *, by_hand: bool = False) -> Callable[[], Any]:
    """Build a case; `by_hand` asks for the version rewritten with out=, which only suites with `BY_HAND` have."""
    suite, _, name = case.partition(":")
    module = importlib.import_module(f"cases.{suite}")
    iteration: Callable[[], Any] = module.build(name, by_hand=by_hand) if by_hand else module.build(name)
    return iteration
