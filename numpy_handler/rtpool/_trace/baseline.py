"""Baselines of tests: what each came to when that was found right, in a file; later runs may not need more."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from .limits import COMPARED, Measured

FORMAT, VERSION = "rtpool-baseline", 1


class BaselineError(ValueError):
    """A file is no baseline; the text says why."""


def load(path: str) -> dict[str, dict[str, int]]:
    """What each test may need, by its name; nothing if there is no such file.

    Raises
    ------
    BaselineError
        If the file holds something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BaselineError(f"{path} cannot be read: {error}") from None
    tests = data.get("tests") if isinstance(data, dict) and data.get("format") == FORMAT else None
    if not isinstance(tests, dict) or data.get("version") != VERSION:
        raise BaselineError(f"{path} is no baseline of rtpool, version {VERSION}")
    found = {}
    for name, figures in tests.items():
        if not isinstance(figures, dict) or not all(type(value) is int for value in figures.values()):
            raise BaselineError(f"{path}: the figures of {name} are no whole numbers")
        found[name] = {field: value for field, value in figures.items() if field in COMPARED}
    return found


def save(path: str, tests: dict[str, dict[str, int]]) -> None:
    """Write a baseline: all of it or nothing."""
    data = {"format": FORMAT, "version": VERSION, "tests": dict(sorted(tests.items()))}
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", dir=folder, encoding="utf-8", delete=False) as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def update(path: str, measured: dict[str, dict[str, Any]]) -> int:
    """Put the figures of tests that have run into a baseline; others' stay. How many are in it then."""
    tests = load(path)
    for name, figures in measured.items():
        tests[name] = {field: int(figures[field]) for field in Measured._fields if field in COMPARED}
    save(path, tests)
    return len(tests)
