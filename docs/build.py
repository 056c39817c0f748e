"""The documentation site, by one command on a machine with Python and a compiler:

    python3 docs/build.py

It makes an environment of its own in build/docs, installs rtpool there with the extra `docs`, and builds docs/ into
build/docs/html; warnings are errors, links that lead nowhere within the site among them.

    python3 docs/build.py --linkcheck

follows the links to other sites as well. Exit code: 1 where a site answers with an error or has not what the link
names; 3 where none does, but some could not be reached from here; each is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "build" / "docs"


NOT_REACHED = 3


def sphinx(python: str, builder: str, *options: str, source: Path = HERE, work: Path = WORK) -> int:
    command = [python, "-m", "sphinx", "--builder", builder, "--jobs", "auto", "--quiet", *options]
    return subprocess.run(
        [*command, "--doctree-dir", str(work / "doctrees"), str(source), str(work / builder)]
    ).returncode


def follow_links(python: str, source: Path = HERE, work: Path = WORK) -> int:
    """Follow every link, and say which were followed, broken, or not to be reached."""
    report = work / "linkcheck" / "output.json"
    report.unlink(missing_ok=True)
    sphinx(python, "linkcheck", "--silent", source=source, work=work)
    if not report.exists():
        print("linkcheck ended without a report")
        return 1
    found: list[dict[str, Any]] = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    good = [link for link in found if link["status"] in ("working", "redirected")]
    bad = [link for link in found if link["status"] in ("broken", "timeout", "rate-limited")]
    bad += [link for link in found if link["status"] == "ignored" and "unavailable" in link["info"]]
    unreached = [link for link in bad if not was_answered(link)]
    broken = [link for link in bad if was_answered(link)]
    for link in broken:
        print(f"broken: {link['filename']}:{link['lineno']}: {link['uri']}: {link['info']}")
    for link in unreached:
        print(f"not reached from here: {link['filename']}:{link['lineno']}: {link['uri']}: {link['info'][:120]}")
    print(f"{len(good)} links to other sites followed, {len(broken)} broken, {len(unreached)} not reached")
    return 1 if broken else NOT_REACHED if unreached else 0


def was_answered(link: dict[str, Any]) -> bool:
    """Whether somebody was asked: a site that answered with an error, or with a page that lacks the anchor; a file."""
    answered = bool(link["code"]) or re.match(r"\d{3} |unauthorized|Anchor ", link["info"]) is not None
    return (answered and link["status"] == "broken") or not link["uri"].startswith("http")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linkcheck", action="store_true", help="follow links to other sites, too")
    parser.add_argument("--here", action="store_true", help="this Python, with rtpool and its extra docs")
    arguments = parser.parse_args()
    python = sys.executable
    if not arguments.here:
        python = str(WORK / "venv" / "bin" / "python")
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[docs]"], check=True)
    code = sphinx(python, "html", "--fail-on-warning", "--keep-going")
    if code == 0:
        print(f"built: {WORK / 'html' / 'index.html'}")
    return code or (follow_links(python) if arguments.linkcheck else 0)


if __name__ == "__main__":
    sys.exit(main())
