"""Waits that end: what does not come is named, and a process that does not end is ended."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Any

LIMIT = 120.0  # seconds: far above what any of them takes on a machine that does much else


def received(connection: Any, limit: float = LIMIT, as_bytes: bool = False) -> Any:
    """What comes through a connection of `multiprocessing`, pickled on request; EOFError where its end is closed."""
    if not connection.poll(limit):
        raise AssertionError(f"nothing came through {connection!r} in {limit:g} s")
    return connection.recv_bytes() if as_bytes else connection.recv()


def ended(process: Any, limit: float = LIMIT) -> int:
    """The exit code of a process of `multiprocessing`."""
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{process!r} did not end in {limit:g} s")
    return int(process.exitcode)


def exit_code(child: int, limit: float = LIMIT) -> int:
    """The exit code of a forked child, negative where a signal ended it."""
    watched = os.pidfd_open(child)
    try:
        over = select.select([watched], [], [], limit)[0]
    finally:
        os.close(watched)
    if not over:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert over, f"the forked child {child} did not end in {limit:g} s"
    return code


def joined(*threads: threading.Thread, limit: float = LIMIT) -> None:
    """Threads that are to end."""
    for thread in threads:
        thread.join(limit)
        assert not thread.is_alive(), f"{thread!r} did not end in {limit:g} s"
