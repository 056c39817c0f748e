"""What results in the tree say of paths: where in the tree, and nothing of the machine that they were made on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ("/dev/", "/proc/", "/sys/")  # the same on every machine
ADDRESS = re.compile(r"\b(?:https?|ftp|file)://[^\s'\",;)]+")
PATH = re.compile(r"(?<![\w./~])(?:~|(?=/))(?:/[^\s/:'\",;()\[\]]+){2,}/?")


def plain(text: str) -> str:
    """The text with paths of this tree as they are in it, others as the name they end with, and no addresses."""

    def shorten(found: re.Match[str]) -> str:
        path = found[0]
        if path.startswith(KERNEL):
            return path
        return path.rstrip("/").rpartition("/")[2]

    return PATH.sub(shorten, ADDRESS.sub("(address)", text.replace(f"{ROOT}/", "")))


def all_plain(value: Any) -> Any:
    """The same of every text in what is written as JSON."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {name: all_plain(each) for name, each in value.items()}
    return [all_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
