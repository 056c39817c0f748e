"""Processes that show themselves: finding them, asking them, and what the kernel knows of them."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import time
from typing import NamedTuple

from .. import _core
from . import page

_LINK = "/memfd:rtpool-live"
_ASKED = 16  # where the word is
_TIMEOUT = 1.0


class NotShown(RuntimeError):
    """A process that is not shown, or may not be looked at; the text says which, and what helps."""


class Kernel(NamedTuple):
    """What the kernel says of a process. `user`: its number."""

    command: str
    user: int
    resident_bytes: int
    minor_faults: int
    major_faults: int
    threads: int


class Snapshot(NamedTuple):
    """A process at a moment.

    Attributes
    ----------
    process : int
        As this process knows it.
    taken : float
        Of the monotonic clock.
    kernel : Kernel
    page : Page or None
        `None` if it never answered.
    answered : bool
        Whether it did this time; else the page is an earlier answer. A process that is stopped does not.
    """

    process: int
    taken: float
    kernel: Kernel
    page: page.Page | None
    answered: bool


def find() -> tuple[list[int], int]:
    """All processes that show themselves, and how many may not be looked at."""
    shown, hidden = [], 0
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            if _descriptors(int(name)):
                shown.append(int(name))
        except PermissionError:
            hidden += 1
        except OSError:
            continue  # it has ended
    return sorted(shown), hidden


def _descriptors(process: int) -> list[str]:
    """Paths by which the page of a process may be opened; `OSError` where it may not be looked at."""
    folder = f"/proc/{process}/fd"
    found = []
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(path).startswith(_LINK):
                found.append(path)
    return found


def kernel(process: int) -> Kernel:
    """What the kernel says of a process; `OSError` if it has ended."""
    folder = f"/proc/{process}"
    with open(f"{folder}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    with open(f"{folder}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    with open(f"{folder}/cmdline", "rb") as raw:
        words = raw.read(4096).split(b"\0")
    command = " ".join(word.decode("utf-8", "replace") for word in words if word)
    command = "".join(c if c.isprintable() else "?" for c in command)
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    return Kernel(command, os.stat(folder).st_uid, resident, int(fields[7]), int(fields[9]), int(fields[17]))


def _own_number(process: int) -> int:
    """How a process knows itself: in its own name space of processes, the innermost."""
    with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return process


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


class Watched:
    """A process that is asked again and again. Close it: the page stays with whoever has it open.

    Raises
    ------
    NotShown
        If there is no such process, it is not shown, or may not be looked at.
    """

    def __init__(self, process: int) -> None:
        self.process = process
        self._file = -1
        self._last: page.Page | None = None
        try:
            paths = _descriptors(process)
        except PermissionError:
            raise NotShown(self._refused()) from None
        except OSError:
            raise NotShown(f"there is no process {process}") from None
        problem = ""
        for path in paths:
            try:
                self._open(path)
                return
            except (OSError, page.PageError) as error:
                problem = f": {error}"
        if paths and not problem:
            problem = ": it was forked without Python"
        if problem:
            raise NotShown(f"process {process} cannot be read{problem}")
        raise NotShown(f"process {process} does not show itself: start it with RTPOOL_LIVE=1 (and import rtpool in it)")

    def _refused(self) -> str:
        try:
            owner = os.stat(f"/proc/{self.process}").st_uid
        except OSError:
            return f"there is no process {self.process}"
        if owner != os.geteuid():
            who = _user(owner)
            return (
                f"process {self.process} belongs to {who}: run this as {who}{' or root' if owner else ''} to look at it"
            )
        return f"process {self.process} may not be looked at (not dumpable, or in a container): run this as root"

    def _open(self, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise page.PageError("no page of rtpool")
            head = page.read_head(os.pread(file, page.HEAD.size, 0))
            if head.process != _own_number(self.process):
                raise page.PageError("the page is another process'; a child that was forked without Python has none")
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def close(self) -> None:
        """Let the page go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def look(self, timeout: float = _TIMEOUT) -> Snapshot:
        """Ask the process and wait for its answer.

        Raises
        ------
        ProcessLookupError
            If it has ended.
        """
        answered = False
        with contextlib.suppress(page.PageError):
            answered = self._ask(timeout)
        try:
            figures = kernel(self.process)
        except (OSError, ValueError, IndexError) as error:
            raise ProcessLookupError(f"process {self.process} has ended") from error
        return Snapshot(self.process, time.monotonic(), figures, self._last, answered)

    def _ask(self, timeout: float) -> bool:
        end = time.monotonic() + timeout
        number = (page.read_head(self._read(page.HEAD.size)).asked + 1) & 0xFFFFFFFF
        try:
            os.pwrite(self._file, number.to_bytes(4, "little"), _ASKED)
            _core._live_wake(self._file)
            while True:
                head = page.read_head(self._read(page.HEAD.size))
                if (head.answered - number) & 0x80000000 == 0 and not head.sequence & 1:
                    data = self._read(min(head.bytes, page.MOST_BYTES))
                    after = page.read_head(self._read(page.HEAD.size))
                    if after.sequence == head.sequence:
                        self._last = page.parse(data)
                        return True
                left = end - time.monotonic()
                if left <= 0:
                    return False
                # While an answer is being written there is nothing to wait for but the next moment.
                _core._live_wait(self._file, head.answered, min(left, 0.001 if head.sequence & 1 else left))
        except OSError:
            return False

    def _read(self, size: int) -> bytes:
        """As much as there is: the file may be shorter than it says."""
        return os.pread(self._file, size, 0)
