"""Directives that read the reference from the program itself, so that it cannot differ from it.

`rtpool-commands`: the help of every command of `python -m rtpool`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive


def _help(*command: str) -> str:
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "rtpool", *command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class Commands(Directive):
    """A section for each command, with its help."""

    def run(self) -> list[nodes.Node]:
        overview = _help()
        sections: list[nodes.Node] = [nodes.literal_block(overview, overview, language="text")]
        for name in re.findall(r"^    (\w+) ", overview, re.MULTILINE):
            section = nodes.section(ids=[f"command-{name}"])
            section += nodes.title(text=name)
            text = _help(name)
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("rtpool-commands", Commands)
    return {"parallel_read_safe": True}
