"""Memory calls of another process, counted from outside: by perf, which does not disturb it, or by strace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

CALLS = ("mmap", "munmap", "brk", "mremap", "madvise")


def tracer() -> str:
    """Which tool counts here: "perf", "strace", or nothing."""
    for name, command in (
        ("perf", ["perf", "stat", "-e", "syscalls:sys_enter_mmap", "true"]),
        ("strace", ["strace", "-f", "-o", os.devnull, "true"]),
    ):
        if shutil.which(name) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return name
    return ""


@contextlib.contextmanager
def watch(process: int, by: str) -> Iterator[dict[str, int]]:
    """Count what all threads of a process do inside the block; the counts are there after it."""
    counts: dict[str, int] = {}
    with (_perf if by == "perf" else _strace)(process, counts):
        yield counts


@contextlib.contextmanager
def _perf(process: int, counts: dict[str, int]) -> Iterator[None]:
    control_there, control = os.pipe()
    answer, answer_there = os.pipe()
    events = ",".join(f"syscalls:sys_enter_{call}" for call in CALLS)
    command = ["perf", "stat", "-x", ";", "-e", events, "-p", str(process)]
    command += ["--delay", "-1", "--control", f"fd:{control_there},{answer_there}"]
    try:
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(control_there, answer_there),
        ) as perf:
            os.close(control_there)
            os.close(answer_there)
            control_there = answer_there = -1
            try:
                os.write(control, b"enable\n")
                enabled = os.read(answer, 16)  # counting from here on; nothing: perf has ended
                yield
            finally:
                perf.send_signal(signal.SIGINT)
                text = perf.communicate()[1]
            lines = [line.split(";") for line in text.splitlines() if "sys_enter_" in line]
            counts.update({fields[2].rpartition("_")[2]: int(fields[0]) for fields in lines if fields[0].isdigit()})
            if not enabled or set(counts) != set(CALLS):
                raise OSError(f"perf did not count: {text.strip()}")
    finally:
        for descriptor in (control_there, answer_there, control, answer):
            if descriptor >= 0:
                os.close(descriptor)


@contextlib.contextmanager
def _strace(process: int, counts: dict[str, int]) -> Iterator[None]:
    command = ["strace", "-f", "-e", f"trace={','.join(CALLS)}", "-p", str(process)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        first = strace.stderr.readline()
        try:
            if "attached" not in first:
                raise OSError(f"strace did not attach: {first.strip()}")
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            text = strace.communicate()[1]
    for line in text.splitlines():
        if "resumed>" not in line:
            for call in CALLS:
                counts[call] = counts.get(call, 0) + (f"{call}(" in line)
