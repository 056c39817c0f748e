"""Packages of Debian's suites, signatures checked, without a change to the system's own list of sources."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

SOURCES = """Types: {kind}
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def must(*command: object, cwd: Path) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def apt(work: Path, kind: str, suite: str) -> list[str]:
    """The package client with lists of its own below `work`: of sources (deb-src) or programs (deb) of a suite."""
    if not shutil.which("apt-get"):
        raise SystemExit("apt-get is missing: packages come from Debian's archive")
    place = (work / f"apt-{kind}-{suite}").resolve()
    for folder in ("etc", "lists/partial", "cache/archives/partial"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "etc" / "source.sources").write_text(SOURCES.format(kind=kind, suite=suite), encoding="ascii")
    line = ["apt-get", f"-oDir::Etc::SourceParts={place / 'etc'}", "-oDir::Etc::SourceList=/dev/null"]
    line += [f"-oDir::State::Lists={place / 'lists'}", f"-oDir::Cache={place / 'cache'}", "-qq"]
    must(*line, "update", cwd=place)
    return line


def _kept(place: Path, download: Callable[[], list[str]], pattern: str, unpack: Callable[[Path], None]) -> None:
    """Download one archive into `place` and unpack it there, unless an earlier call came to its end."""
    ready = place / ".unpacked"
    if ready.exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    must(*download(), cwd=place)
    (archive,) = (path for path in place.glob(pattern) if path.suffix != ".asc")
    unpack(archive)
    ready.touch()


def fetch(package: str, work: Path, suite: str = "trixie") -> Path:
    """The source tree of a package as its authors released it, unpacked below `work` and kept for the next call."""
    place = work / "source" / package
    _kept(
        place,
        lambda: [*apt(work, "deb-src", suite), "source", "--download-only", f"{package}/{suite}"],
        "*.orig.tar.*",
        lambda archive: must("tar", "--extract", "--file", archive, cwd=place),
    )
    return next(path for path in place.iterdir() if path.is_dir())


def fetch_files(package: str, work: Path, suite: str = "trixie") -> Path:
    """The files of a package for this machine as they would be installed, below `work` and kept for the next call."""
    place = work / "files" / package
    _kept(
        place,
        lambda: [*apt(work, "deb", suite), "download", f"{package}/{suite}"],
        "*.deb",
        lambda archive: must("dpkg", "-x", archive, place / "root", cwd=place),
    )
    return place / "root"
