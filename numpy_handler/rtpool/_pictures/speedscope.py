"""Files for speedscope: profiles as stacks with weights. The format is its own, published as a JSON schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


class Profile(NamedTuple):
    """What one list of stacks weighs. `unit`: ``"bytes"`` or ``"none"``."""

    name: str
    unit: str
    samples: list[list[int]]  # frames by their number, the outermost first
    weights: list[int]


def speedscope(
    name: str, frames: Iterable[tuple[str, str, int, int]], profiles: Sequence[Profile], exporter: str
) -> dict[str, Any]:
    """Give the file as a dict. `frames`: name, file, line and column, each of the last three empty if not known."""
    shared = []
    for title, file, line, column in frames:
        frame: dict[str, Any] = {"name": title}
        frame.update({key: value for key, value in (("file", file), ("line", line), ("col", column)) if value})
        shared.append(frame)
    return {
        "$schema": SCHEMA,
        "exporter": exporter,
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": shared},
        "profiles": [
            {
                "type": "sampled",
                "name": profile.name,
                "unit": profile.unit,
                "startValue": 0,
                "endValue": sum(profile.weights),
                "samples": profile.samples,
                "weights": profile.weights,
            }
            for profile in profiles
        ],
    }
