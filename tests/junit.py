"""What a JUnit file tells, as pytest, GoogleTest and Meson write such. Needs Python alone."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Cases:
    """How many cases passed, the names of those that failed, and those that were skipped, with the reason of each."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """For a file of results."""
        return {"passed": self.passed, "failed": self.failed, "skipped": dict(self.skipped)}

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def read(report: Path) -> Cases:
    """Read a report; one that is not there is of a program that ended before it wrote any."""
    if not report.exists():
        return Cases(failed=["ended"])
    cases = Cases()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname') or ''}::{case.get('name')}".removeprefix("::")
        if case.find("failure") is not None or case.find("error") is not None:
            cases.failed.append(name)
        elif (skipped := case.find("skipped")) is not None:
            reason = skipped.get("message") or (skipped.text or "").strip() or "no reason given"
            # GoogleTest puts the place on the first line and what was said on the next.
            cases.skipped.append((name, reason.splitlines()[-1].strip()))
        elif case.get("status") == "notrun":
            cases.skipped.append((name, "not run"))
        else:
            cases.passed += 1
    return cases
