"""Outcomes of a run of a test suite, read from the plugin's record, and what differs between two of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The worst phase decides: a test whose teardown fails has failed.
_RANK = {"left_out": -1, "passed": 0, "skipped": 1, "xfailed": 2, "xpassed": 3, "failed": 4, "error": 5, "crashed": 6}


@dataclass
class Run:
    """Outcome and last line of text of every test, by test."""

    outcomes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        found = Counter(self.outcomes.values())
        return {name: found[name] for name in _RANK if found[name]} | {"total": len(self.outcomes)}

    def passed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == "passed"}

    def bad(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome in ("failed", "error", "crashed")}


def read(folder: Path) -> Run:
    """Read what the plugin wrote for one run, from all its processes."""
    run = Run()
    pools: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            event = entry["event"]
            if event == "pool":
                pools.append(entry)
                continue
            test = entry["test"]
            if event == "left_out":
                run.outcomes[test] = "left_out"
                continue
            if event == "start":
                run.outcomes[test] = "crashed"
                continue
            outcome = entry["outcome"]
            if outcome == "failed" and event != "call":
                outcome = "error"
            before = run.outcomes.get(test, "crashed")
            if event == "setup" or before == "crashed" or _RANK[outcome] > _RANK[before]:
                run.outcomes[test] = outcome
                run.texts[test] = entry["text"]
            if event == "setup" and outcome == "passed":
                run.outcomes[test] = "crashed"  # until its call has ended
    if pools:
        run.pool = {
            # the process that only distributes tests has run none and allocated next to nothing: it counts as well
            "processes": len(pools),
            "active_to_the_end": all(entry["active"] for entry in pools),
            "allocations": sum(entry["allocations"] for entry in pools),
            "bytes": sum(entry["bytes"] for entry in pools),
            "misuses": sum(entry["misuses"] or 0 for entry in pools),
        }
    return run


@dataclass(frozen=True)
class Difference:
    """A test that came out differently."""

    test: str
    without: str
    activated: str
    text: str

    def to_json(self) -> dict[str, str]:
        return {"test": self.test, "without": self.without, "activated": self.activated, "text": self.text}


def differences(without: Run, activated: Run) -> list[Difference]:
    """List the tests whose outcome differs, those that only one run has included.

    What was left out of a run without is like what passed when activated.
    """
    found = []
    for test in sorted(without.outcomes.keys() | activated.outcomes.keys()):
        a = without.outcomes.get(test, "absent")
        b = activated.outcomes.get(test, "absent")
        if a != b and (a, b) != ("left_out", "passed"):
            found.append(Difference(test, a, b, activated.texts.get(test) or without.texts.get(test, "")))
    return found
