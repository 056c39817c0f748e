"""What `run` runs: found as a shell would find it, started as Python would start it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import NamedTuple

import _rtpool_start

from .options import Options, recorded_children


class Program(NamedTuple):
    """A program and how it is started."""

    how: str  # "script", "module", "code", "command"
    words: tuple[str, ...]  # behind the interpreter's own options, or the command itself

    @property
    def foreign(self) -> bool:
        """Whether it is no program of this Python."""
        return self.how == "command"


def find(name: str, *, module: bool, code: bool) -> Program:
    """Find out what a name is.

    Raises
    ------
    ValueError
        It is nothing that can be run.
    """
    if module:
        return Program("module", ("-m", name))
    if code:
        return Program("code", ("-c", name))
    if name == "-":
        return Program("script", ("-",))
    if os.path.exists(name):
        return Program("command", (os.path.abspath(name),)) if _is_foreign(name) else Program("script", (name,))
    there = None if os.sep in name else shutil.which(name)
    if there is None:
        raise ValueError(f"there is no {name!r}, neither a file nor a command")
    return Program("command", (there,)) if _is_foreign(there) else Program("script", (there,))


def _is_foreign(path: str) -> bool:
    """Whether a file is to be started by itself: it says so, and not by naming this Python."""
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        return False
    with open(path, "rb") as file:
        head = file.readline(4096)
    if head.startswith(b"\x7fELF"):
        return True
    if not head.startswith(b"#!"):
        return False
    words = os.fsdecode(head[2:]).split()
    if words and os.path.basename(words[0]) == "env":
        found = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        words = [shutil.which(found) or found]
    if not words:
        return False
    if os.path.basename(words[0]) == "sh":
        # pip's way with a long path: a shell script whose second line begins with Python's.
        with open(path, "rb") as file:
            second = file.read(8192).split(b"\n")[1:2]
        return not (second and second[0].startswith(b"'''exec'") and sys.executable.encode() in second[0])
    # Not through links: an environment's Python is one, to another without the environment.
    here = {os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.executable))}
    is_python = os.path.basename(words[0]).startswith("python")
    return not is_python or os.path.dirname(os.path.abspath(words[0])) not in here


def named_by_option() -> list[str] | None:
    """If this Python was started with ``-m rtpool``: the options before that; else None."""
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    if before[-1:] == ["rtpool"]:
        before[-2:] = [before[-2].removesuffix("m")]  # -m rtpool, -Im rtpool
    elif before and before[-1].startswith("-") and before[-1].endswith("mrtpool"):
        before[-1] = before[-1].removesuffix("mrtpool")
    else:
        return None
    return [flag for flag in before if flag != "-"]


def interpreter_flags() -> list[str]:
    """The options this Python was started with, without its program."""
    named = named_by_option()
    return subprocess._args_from_interpreter_flags() if named is None else named  # type: ignore[attr-defined]


def run_and_wait(program: Program, arguments: list[str], options: Options) -> int:
    """Run a command whose Pythons are activated; end as it ends."""
    from .session import add_children

    begun = time.monotonic()
    environment = os.environ | {"RTPOOL_ACTIVATE": "1", "RTPOOL_SUMMARY": options["summary"] or ""}
    environment |= recorded_children(options)
    stderr = _rtpool_start.file_behind(2)
    # The terminal sends these to both; the command decides what comes of them.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    process = subprocess.Popen([*program.words, *arguments], env=environment, preexec_fn=_as_by_default)

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    code = process.wait()
    seconds = time.monotonic() - begun
    summary = {"seconds": seconds, "pool": None}
    lines = [f"rtpool: {seconds:.3f} s"]
    add_children(options, summary, lines)
    _rtpool_start.tell(options, summary, lines, stderr)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _as_by_default() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
