"""What a run of release.py found, and how it is added to what earlier ones recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from plain_text import all_plain


class Report:
    """What held and what did not, told as it is found: each of something, whose name is the same in every run."""

    def __init__(self) -> None:
        self.looked_at: set[str] = set()
        self.problems: list[dict[str, str]] = []
        self.not_done: list[dict[str, str]] = []

    def hold(self, of: str, what: str, true: bool, seen: str = "") -> bool:
        self.looked_at.add(of)
        if not true:
            print(f"FAILED  {of}: {what}\n{seen[-4000:]}", flush=True)
            self.problems.append({"of": of, "what": what, "seen": last_lines(seen)})
        return true

    def say(self, text: str) -> None:
        print(text, flush=True)

    def leave_out(self, of: str, why: str) -> None:
        print(f"not done: {of}: {why}", flush=True)
        self.looked_at.add(of)
        self.not_done.append({"of": of, "why": last_lines(why)})


def last_lines(text: str, count: int = 3) -> str:
    """Where programs say why they end."""
    return "\n".join([line.strip() for line in text.splitlines() if line.strip()][-count:])


def added(before: dict[str, Any], result: dict[str, Any], looked_at: set[str]) -> dict[str, Any]:
    """What the results say after a run: of the same version, what was made before and not looked at now stays."""
    if before.get("archive") != result["archive"]:
        return result
    wheels = {row["wheel"]: row for row in [*before["wheels"], *result["wheels"]]}
    merged = before | result | {"wheels": [wheels[name] for name in sorted(wheels)]}
    for name in ("installed", "hot_path", "not_done", "problems"):
        stay = [row for row in before.get(name, []) if row["of"] not in looked_at]
        merged[name] = sorted([*stay, *result.get(name, [])], key=lambda row: str(row["of"]))
    return merged


def record(place: Path, result: dict[str, Any], looked_at: set[str]) -> None:
    """Write the results, without paths and addresses of this machine."""
    before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    place.parent.mkdir(exist_ok=True)
    content = all_plain(added(before, all_plain(result), looked_at))
    place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
