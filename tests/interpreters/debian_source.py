"""Sources of Debian's packages, signatures checked, without a change to the system's own list of sources."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def must(*command: object, cwd: Path) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def fetch(package: str, work: Path, suite: str = "trixie") -> Path:
    """The source tree of a package as its authors released it, unpacked below `work` and kept for the next call."""
    place = work / "source" / package
    ready = place / ".unpacked"
    if not ready.exists():
        if not shutil.which("apt-get"):
            raise SystemExit("apt-get is missing: sources come from Debian's archive")
        shutil.rmtree(place, ignore_errors=True)
        apt = work / "apt"
        for folder in ("etc", "lists/partial", "cache/archives/partial"):
            (apt / folder).mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True)
        (apt / "etc" / "source.sources").write_text(SOURCES.format(suite=suite), encoding="ascii")
        options = [
            f"-oDir::Etc::SourceParts={apt / 'etc'}",
            "-oDir::Etc::SourceList=/dev/null",
            f"-oDir::State::Lists={apt / 'lists'}",
            f"-oDir::Cache={apt / 'cache'}",
        ]
        must("apt-get", *options, "-qq", "update", cwd=place)
        must("apt-get", *options, "-qq", "source", "--download-only", f"{package}/{suite}", cwd=place)
        (archive,) = [path for path in place.glob("*.orig.tar.*") if path.suffix != ".asc"]
        must("tar", "--extract", "--file", archive, cwd=place)
        ready.touch()
    return next(path for path in place.iterdir() if path.is_dir())
