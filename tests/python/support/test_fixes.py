"""The lines that lift the limits of a user say the same limit in each of the three places where it may be lifted."""

from __future__ import annotations

import errno
import os
import re

import pytest

from rtpool._support import fixes


def _limits(fix: str, limit: str) -> tuple[str, str, str, str]:
    found = re.search(
        rf"limits\.conf and log in again: (\S+) - {limit} (\S+) \(service: Limit{limit.upper()}=(\S+);"
        rf" container: --ulimit {limit}=(\S+?)[ )]",
        fix,
    )
    assert found is not None, fix
    return found[1], found[2], found[3], found[4]


@pytest.mark.parametrize(
    ("size", "kib", "service", "container"),
    [(1, "1", "1K", "1024"), (64 << 20, "65536", "65536K", str(64 << 20)), (None, "unlimited", "infinity", "-1")],
)
def test_memlock(size: int | None, kib: str, service: str, container: str) -> None:
    assert _limits(fixes.lift_memlock(size), "memlock")[1:] == (kib, service, container)


def test_rtprio() -> None:
    assert _limits(fixes.lift_rtprio(80), "rtprio")[1:] == ("80", "80", "80")


def test_a_user_without_a_name_is_named_by_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert _limits(fixes.lift_memlock(None), "memlock")[0] == f"@{os.getgid()}"


def test_errno_text() -> None:
    assert fixes.errno_text(errno.ENOMEM) == f"ENOMEM: {os.strerror(errno.ENOMEM)}"
    assert fixes.errno_text(0) == "no errno"
    assert fixes.errno_text(99999).startswith("99999: ")
