"""Which libc this process runs on, held against what the loader mapped."""

from __future__ import annotations

from pathlib import Path

from rtpool._support.libc import libc
from rtpool.cli._machine import describe


def test_the_name_is_of_the_libc_that_is_mapped() -> None:
    mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
    name, version = libc()
    assert name == ("glibc" if "libc.so.6" in mapped else "musl")
    assert describe()["libc"] == (f"{name} {version}" if version else name)
