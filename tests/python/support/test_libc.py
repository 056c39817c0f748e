"""Which libc this process runs on, held against what the loader mapped."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from rtpool._support.libc import libc
from rtpool.cli._machine import describe


def test_the_name_is_of_the_libc_that_is_mapped() -> None:
    mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
    name, version = libc()
    assert name == ("glibc" if "libc.so.6" in mapped else "musl")
    assert describe()["libc"] == (f"{name} {version}" if version else name)


@pytest.mark.parametrize(
    ("told", "name", "version"),
    [
        (("glibc", "2.36"), "glibc", "2.36"),
        (("musl", "1.2.5"), "musl", "1.2.5"),
        (("", ""), "musl", ""),
        (("libc", ""), "musl", ""),
    ],
)
def test_what_python_tells_of_programs_for_musl(
    monkeypatch: pytest.MonkeyPatch, told: tuple[str, str], name: str, version: str
) -> None:
    """Before 3.14 nothing, or a name that is none."""
    monkeypatch.setattr(platform, "libc_ver", lambda: told)
    assert libc.__wrapped__() == (name, version)
