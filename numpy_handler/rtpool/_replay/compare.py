"""Contestants in turns, each in a process of its own, and what a replay came to in each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from . import peers, watch
from .script import Script

_POOL = "pool"
_PACKAGE = __name__.rpartition(".")[0]
# What would change a contestant behind its back.
_OURS = ("RTPOOL_ACTIVATE", "RTPOOL_RUN", "RTPOOL_LIVE", "LD_PRELOAD", "MALLOC_", "PYTHONMALLOC")


class Contestant(NamedTuple):
    """Who serves a replay.

    Attributes
    ----------
    name : str
    kind : {"pool", "malloc", "null"}
    environment : dict
        Set for its process.
    options : dict or None
        Of `Pool`; `None` for the default pool.
    plan : str or None
        A plan's file, made ready before the first pass.
    missing : str
        Why it cannot take part; empty: it can.
    """

    name: str
    kind: str
    environment: dict[str, str] = {}
    options: dict[str, Any] | None = None
    plan: str | None = None
    missing: str = ""


class Figures(NamedTuple):
    """What a pass came to. `None`: nothing could tell.

    Attributes
    ----------
    faults : int
        Page faults of the process.
    kernel_calls : int or None
        mmap, munmap, brk, mremap and madvise of the process, counted from outside.
    misses, fallbacks : int or None
        Of pools.
    failures : int
        Requests without an answer.
    peak, resident, kept : int or None
        Resident bytes above those of the process before the replay: the most during the pass, at its end, and when all
        has been freed.
    nanoseconds : float
        The replay's own bookkeeping included; the median over the rounds.
    """

    faults: int
    kernel_calls: int | None
    misses: int | None
    fallbacks: int | None
    failures: int
    peak: int | None
    resident: int
    kept: int
    nanoseconds: float


class Outcome(NamedTuple):
    """A contestant's first pass, its last one, and the resident bytes it made ready before."""

    name: str
    first: Figures
    last: Figures
    prepared: int


class ReplayError(RuntimeError):
    """A contestant's process did not do what it should; the text has its last words."""


def pool(name: str, options: dict[str, Any] | None = None, plan: str | None = None) -> Contestant:
    """A pool: the default pool, or one with options of its own."""
    return Contestant(name, _POOL, {}, options, plan)


def peer(name: str) -> Contestant:
    """An allocator behind malloc, one of `peers.NAMES`."""
    found = peers.find(name)
    return Contestant(name, "malloc", found.environment, missing=found.missing)


NOTHING = Contestant("nothing", "null")


class _Child:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, folder: str, slots: int, write: bool) -> None:
        self._name = contestant.name
        asked = {
            "kind": contestant.kind,
            "options": contestant.options,
            "plan": contestant.plan,
            "slots": slots,
            "write": write,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment |= contestant.environment
        code = f"import sys; from {_PACKAGE}.child import main; sys.exit(main(sys.argv[1:]))"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, folder, json.dumps(asked)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, bufsize=1,
        )  # fmt: skip
        self.prepared = int(self._answer()["prepared"])

    @property
    def process(self) -> int:
        return self._process.pid

    def step(self) -> dict[str, Any]:
        """One pass."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            last = "".join(said.splitlines(keepends=True)[-1:]).strip()
            raise ReplayError(f"{self._name} ended with exit code {self._process.returncode}: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.communicate()


def _run(
    contestant: Contestant, folder: str, script: Script, *, write: bool, passes: int, by: str
) -> tuple[list[dict[str, Any]], int]:
    """One process: the figures of its passes, with memory calls if `by` names what counts them."""
    child = _Child(contestant, folder, script.slots, write)
    found = []
    try:
        for _ in range(passes):
            counting: AbstractContextManager[dict[str, int]] = nullcontext({})
            if by:
                counting = watch.watch(child.process, by)
            with counting as calls:
                figures = child.step()
            figures["kernel_calls"] = sum(calls.values()) if by else None
            found.append(figures)
    finally:
        child.close()
    return found, child.prepared


def compare(
    script: Script,
    folder: str,
    contestants: Sequence[Contestant],
    *,
    write: bool = True,
    passes: int = 2,
    rounds: int = 3,
    by: str = "",
    step: Callable[[str], None] = lambda name: None,
) -> list[Outcome]:
    """Replay in every contestant, in turns.

    Parameters
    ----------
    script : Script
    folder : str
        Where its columns have been saved.
    contestants : sequence of Contestant
        Those that take part.
    write : bool
        Whether a byte of each page is written.
    passes : int
        How often a process does the whole script; the first pass and the last one count.
    rounds : int
        Processes of each contestant: faults and times are the median over them, all else is of the first.
    by : str
        What counts memory calls: "perf" in the first round, "strace", which makes everything slower, in a round of its
        own; empty: they are not counted.
    step : callable
        Told what begins.

    Raises
    ------
    ReplayError
        If a process ends early.
    """
    taken: dict[str, list[tuple[list[dict[str, Any]], int]]] = {one.name: [] for one in contestants}
    counted: dict[str, list[dict[str, Any]]] = {}
    for turn in range(rounds):
        for one in contestants if turn % 2 == 0 else reversed(contestants):
            step(one.name)
            with_perf = by if by == "perf" and turn == 0 else ""
            taken[one.name].append(_run(one, folder, script, write=write, passes=passes, by=with_perf))
    if by == "strace":
        for one in contestants:
            step(f"{one.name}, under strace")
            counted[one.name] = _run(one, folder, script, write=write, passes=passes, by=by)[0]
    outcomes = []
    for one in contestants:
        runs = taken[one.name]
        calls = counted.get(one.name, runs[0][0])

        def figures(index: int, runs: Any = runs, calls: Any = calls) -> Figures:
            first = runs[0][0][index]
            return Figures(
                int(statistics.median(run[0][index]["faults"] for run in runs)),
                calls[index]["kernel_calls"],
                first.get("misses"),
                first.get("fallbacks"),
                first["failures"],
                first["peak"],
                first["resident"],
                first["kept"],
                statistics.median(run[0][index]["nanoseconds"] for run in runs),
            )

        outcomes.append(Outcome(one.name, figures(0), figures(passes - 1), runs[0][1]))
    return outcomes


def bookkeeping(script: Script, folder: str) -> float:
    """Nanoseconds an operation that the replay itself takes: the least of some passes that nobody serves."""
    found, _ = _run(NOTHING, folder, script, write=False, passes=3, by="")
    return float(min(figures["nanoseconds"] for figures in found)) / script.operations
