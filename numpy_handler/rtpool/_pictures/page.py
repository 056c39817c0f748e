"""One HTML file that holds everything it needs: data, style, code, and the libraries that draw.

Nothing in the data can become markup or code: it stands in a script element that browsers do not run, and the page's
policy lets only the scripts run whose hashes it names, and no request leave the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PARTS, _VENDORED = _HERE / "page_parts", _HERE / "vendored"


def page(title: str, data: Mapping[str, Any]) -> str:
    """Make the file's text. Cost: reads some 200 KB of parts."""
    scripts = {
        "uplot": _read(_VENDORED / "uPlot.iife.min.js"),
        "flamegraph": _read(_VENDORED / "d3-flamegraph.min.js"),
        "script": _read(_PARTS / "page.js"),
    }
    style = "\n".join(
        _read(path) for path in (_VENDORED / "uPlot.min.css", _VENDORED / "d3-flamegraph.css", _PARTS / "page.css")
    )
    parts = scripts | {
        "title": html.escape(title),
        "policy": _policy(scripts.values()),
        "style": style,
        "data": inert(json.dumps(data, separators=(",", ":"))),
    }
    # Each marker once, from the template alone: what is filled in is not looked at.
    pieces = re.split(r"\{\{(\w+)\}\}", _read(_PARTS / "page.html"))
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def inert(text: str) -> str:
    """JSON that an HTML parser passes over: no character begins a tag, a comment or an entity."""
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(scripts: Any) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
