"""How a step came out, in tests, and what is read of that in the reports of others."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import junit


class Skipped(Exception):
    """A step cannot run here; the text says why and what would help."""


class Failed(Exception):
    """A step failed as a whole; the text says what to look at."""


@dataclass
class Result:
    """How a step came out, in tests."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.passed += other.passed
        self.failures += other.failures
        self.skips += other.skips

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"


def read_junit(path: Path) -> Result:
    """Count the cases of a JUnit file; none is a failure of its own."""
    if not path.exists():
        raise Failed("no test report was written")
    cases = junit.read(path)
    result = Result(cases.passed, cases.failed, [f"{name}: {reason}" for name, reason in cases.skipped])
    if not (result.passed or result.failures or result.skips):
        raise Failed("the test report has no test in it")
    return result


def ended_otherwise(log: Path) -> list[str]:
    """The programs of Meson's log that a signal or their deadline ended, without a report, and the test each was in."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        program = json.loads(line)
        if program["result"] in ("TIMEOUT", "ERROR", "INTERRUPT"):
            begun = re.findall(r"^\[ RUN      \] (\S+)", program.get("stdout", ""), re.MULTILINE)
            found.append(f"{program['name']}: {program['result']}" + (f" in {begun[-1]}" if begun else ""))
    return found


def grouped(skips: list[str]) -> list[str]:
    """Say each reason once, with the test it was given for or their number."""
    by_reason: dict[str, list[str]] = {}
    for line in skips:
        name, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(name)
    return [
        f"{names[0]}: {reason}" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more: {reason}"
        for reason, names in by_reason.items()
    ]
