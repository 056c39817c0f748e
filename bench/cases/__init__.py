"""What is measured. A case is `suite:name`; `build` makes its inputs and returns one iteration as a callable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

SUITES = ("convert", "empty", "chains", "programs", "compiled")
PLAIN = "plain"


def names(suite: str) -> list[str]:
    """Return the names of a suite's cases, without importing what they need."""
    found: list[str] = importlib.import_module(f"cases.{suite}").NAMES
    return [f"{suite}:{name}" for name in found]


def matching(names: Sequence[str], parts: Sequence[str] | None) -> list[str]:
    """Those that contain one of the parts, or all without any. Ends the program where none does: nothing is written."""
    found = [name for name in names if not parts or any(part in name for part in parts)]
    if not found:
        print(f"no case has {' or '.join(parts or ())} in its name; there are: {', '.join(names)}", file=sys.stderr)
        raise SystemExit(2)
    return found


def inner_iterations(case: str) -> int:
    """How often one call of an iteration does the work: very short work is repeated inside."""
    suite = importlib.import_module(f"cases.{case.partition(':')[0]}")
    return int(getattr(suite, "INNER", 1))


def ways(suite: str) -> tuple[str, ...]:
    """Which rewritten versions the cases of a suite have: `out` (by hand, with out=), `numba`."""
    return tuple(getattr(importlib.import_module(f"cases.{suite}"), "WAYS", ()))


def build(case: str, *, way: str = PLAIN) -> Callable[[], Any]:
    """Build a case; `way` is one of the suite's `ways`, or the code as people write it."""
    suite, _, name = case.partition(":")
    module = importlib.import_module(f"cases.{suite}")
    iteration: Callable[[], Any] = module.build(name) if way == PLAIN else module.build(name, way=way)
    return iteration
