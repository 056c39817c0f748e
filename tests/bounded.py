"""Run a command that has to end, as tests need it wherever they are started from:

    python3 tests/bounded.py --seconds 600 COMMAND...

The command gets a session of its own, nothing to read, and every signal at its default. When its time is up, its
processes are listed with what each waits for; those in Python that have a fault handler, as pytest has, print the
stacks of all their threads; then all of them are killed, also those that left the session or lost their parents. Exit
code: the command's, 128 and the signal that killed it, or 124 when its time was up.

    python3 tests/bounded.py --seconds 1200 --now FILE --each 240 COMMAND...

The command keeps what it is doing in FILE, as tests/python/conftest.py does; none of that may take longer than 240 s.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path

TIME_IS_UP = 124
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
# Processes may take so long to print their stacks and end, and what is left when the command ends (helpers of
# multiprocessing, for instance) to end by itself.
GRACE = 5.0


class Bounded:
    """A command and all its descendants: orphans among them become children of this process, which reaps them."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((PR_SET_CHILD_SUBREAPER, 1), (PR_SET_PDEATHSIG, int(signal.SIGTERM))):
            if libc.prctl(option, value, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl({option})")
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        self.status: int | None = None
        self.pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
            setsigmask=[],
            setsigdef=sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
        )

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self.pid:
                    self.status = os.waitstatus_to_exitcode(ended[1])

    def wait(self, seconds: float) -> signal.Signals | None:
        """Wait for the end of a child or for a signal that ends this process, at most so long."""
        got = signal.sigtimedwait(WATCHED, max(seconds, 0))
        self.reap()
        return None if got is None or got.si_signo == signal.SIGCHLD else signal.Signals(got.si_signo)

    def wait_until_gone(self, seconds: float) -> list[int]:
        """Wait until no descendant is left, at most so long; give those that are."""
        end = time.monotonic() + seconds
        self.reap()
        while (there := descendants()) and time.monotonic() < end:
            self.wait(min(0.1, end - time.monotonic()))
        return there

    def show_stacks(self) -> None:
        """Processes that catch SIGABRT print their stacks and end."""
        for pid in descendants():
            if catches(pid, signal.SIGABRT):
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
                    os.kill(pid, signal.SIGABRT)
        self.wait_until_gone(GRACE)

    def kill(self) -> None:
        end = time.monotonic() + GRACE
        while (there := descendants()) and time.monotonic() < end:
            for pid in there:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.wait_until_gone(0.2)


def descendants() -> list[int]:
    """Every living process below this one, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(entry.name))
    found, look_at = [], [os.getpid()]
    while look_at:
        below = sorted(children.get(look_at.pop(0), []))
        found += below
        look_at += below
    return found


def catches(pid: int, number: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & 1 << (number - 1))
    return False


def describe(pid: int) -> str:
    """A process in a line: what it is, and what its first thread waits for."""
    folder = Path("/proc", str(pid))
    with contextlib.suppress(OSError):
        command = " ".join((folder / "cmdline").read_text(errors="replace").replace("\0", " ").split())
        waits = (folder / "wchan").read_text().strip("0\n") or "nothing"
        threads = len(list((folder / "task").iterdir()))
        return f"  {pid}: {command[:200]} (waits for {waits}; threads: {threads})"
    return f"  {pid}: has just ended"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Doing:
    """What the command says it is doing, and since when."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.seen, self.since = path, (0, ""), time.monotonic()
        if path is not None:
            path.unlink(missing_ok=True)

    def look(self) -> tuple[str, float]:
        """What it is, and for how many seconds: none as long as nothing was said."""
        if self.path is None:
            return "", 0
        with contextlib.suppress(OSError):
            seen = self.path.stat().st_mtime_ns, self.path.read_text(encoding="utf-8")
            if seen != self.seen:
                self.seen, self.since = seen, time.monotonic()
        return self.seen[1], time.monotonic() - self.since if self.seen[1] else 0


def run(command: list[str], seconds: float, now: Path | None, each: float, grace: float) -> int:
    """Run a command with its bounds; give the exit code."""
    end, now_doing = time.monotonic() + seconds, Doing(now)
    bounded = Bounded(command)
    while bounded.status is None:
        left = end - time.monotonic()
        what, since = now_doing.look()
        if left <= 0 or since >= each:
            say(f"\nbounded: still running after {seconds:g} s:" if left <= 0 else f"\nbounded: {what}: no end:")
            for pid in descendants():
                say(describe(pid))
            bounded.show_stacks()
            bounded.kill()
            name = Path(command[0]).name
            took = f"did not end within {seconds if left <= 0 else each:g} s"
            say(f"bounded: {name} {took}, in {what}" if what and left <= 0 else f"bounded: {what or name} {took}")
            return TIME_IS_UP
        if number := bounded.wait(min(left, 1.0) if now is not None else left):
            say(f"bounded: ended by {number.name}")
            bounded.kill()
            return 128 + number
    if left_over := bounded.wait_until_gone(grace):
        say(f"bounded: {Path(command[0]).name} ended and left behind:")
        for pid in left_over:
            say(describe(pid))
        bounded.kill()
    return bounded.status if bounded.status >= 0 else 128 - bounded.status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True, help="how long the command may take")
    parser.add_argument("--now", type=Path, metavar="FILE", help="where the command keeps what it is doing")
    parser.add_argument("--each", type=float, default=float("inf"), help="how long one thing may take that it does")
    parser.add_argument("--grace", type=float, default=GRACE, help="how long what it left may take (%(default)g)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        return run(arguments.command, arguments.seconds, arguments.now, arguments.each, arguments.grace)
    except FileNotFoundError:
        say(f"bounded: there is no command {arguments.command[0]}")
        return 127


if __name__ == "__main__":
    sys.exit(main())
