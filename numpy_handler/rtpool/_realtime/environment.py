"""The machine a section ran on and how its thread ran there."""

from __future__ import annotations

import errno
import os
import platform
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._pool.effective import Degradation
from .._pool.pool import Pool
from .._support.sizes import format_size
from .machine import Wanted
from .probe import Machine

RunsAt = tuple[str, int, int, tuple[int, ...]]  # scheduling policy, priority, nice value, processors


class Environment(NamedTuple):
    """The machine and how the section's thread ran on it.

    Attributes
    ----------
    kernel, preemption : str
        Release and version; the preemption model (``PREEMPT_RT``, ``full``, ``lazy``, ``voluntary``, ``none``).
    scheduler : str
        Policy of the thread inside the section; `priority` for real-time policies, `nice` for the others.
    affinity : tuple of int
        Processors the thread could run on, of `processors` that are online.
    isolated : str
        Processors kept free of other work at boot (``isolcpus``).
    huge_pages : str
        In effect for the pool; and `transparent_huge_pages` as the kernel has them set.
    memlock : int or None
        RLIMIT_MEMLOCK in bytes, `None` for unlimited; `locked` tells whether the process was locked in memory.
    idle_latency : int or None
        Microseconds that leaving the deepest idle state takes, where the kernel tells; at most
        ``cpu_latency=`` where that is in force.
    governor, clock_source : str
        Of the processors' frequency; of the kernel's time.
    virtual : bool or None
        Whether a hypervisor decides when the processors run.
    watch : str
        ``"exact"``: each iteration's faults and switches were seen as they happened; else why the kernel refused
        (``perf_event``), and the counts of a slow iteration may cover several, as its `span` says.
    processor, python, numpy, rtpool : str
    """

    kernel: str
    preemption: str
    scheduler: str
    priority: int
    nice: int
    affinity: tuple[int, ...]
    processors: int
    isolated: str
    huge_pages: str
    transparent_huge_pages: str
    memlock: int | None
    locked: bool
    idle_latency: int | None
    governor: str
    clock_source: str
    virtual: bool | None
    watch: str
    processor: str
    python: str
    numpy: str
    rtpool: str

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        return {**self._asdict(), "affinity": list(self.affinity)}

    def lines(self) -> list[tuple[str, str]]:
        """What each is called and says."""
        memlock = "unlimited" if self.memlock is None else format_size(self.memlock)
        scheduler = f"{self.scheduler} {self.priority}" if self.priority else f"{self.scheduler}, nice {self.nice}"
        idle = "unknown" if self.idle_latency is None else f"{self.idle_latency} us"
        return [
            ("kernel", f"{self.kernel}, preemption {self.preemption}"),
            ("scheduler", f"{scheduler}; processors {_ranges(self.affinity)} of {self.processors}"
                          f"{f', isolated {self.isolated}' if self.isolated else ''}"),
            ("memory", f"huge pages {self.huge_pages} (kernel: {self.transparent_huge_pages}), memlock {memlock},"
                       f" process {'locked' if self.locked else 'not locked'}"),
            ("processor", f"{self.processor}{', virtual machine' if self.virtual else ''}; deepest idle state {idle},"
                          f" governor {self.governor}, clock {self.clock_source}"),
            ("counted by", "the kernel, iteration by iteration" if self.watch == "exact" else self.watch),
            ("versions", f"rtpool {self.rtpool}, numpy {self.numpy}, python {self.python}"),
        ]  # fmt: skip


def read_environment(
    pool: Pool,
    runs_at: RunsAt,
    wanted: Wanted,
    degradations: tuple[Degradation, ...],
    watched: bool,
    watch_error: int,
) -> Environment:
    """Look at the machine."""
    machine = Machine()
    refused = {degradation.setting for degradation in degradations}
    policy, priority, nice, affinity = runs_at
    latency = machine.deepest_idle_latency()
    if wanted.cpu_latency >= 0 and "cpu_latency" not in refused:
        latency = wanted.cpu_latency if latency is None else min(latency, wanted.cpu_latency)
    pages = pool.effective.huge_pages
    return Environment(
        kernel=machine.kernel(),
        preemption=machine.preemption(),
        scheduler=policy,
        priority=priority,
        nice=nice,
        affinity=affinity,
        processors=os.cpu_count() or len(affinity),
        isolated=machine.text("sys/devices/system/cpu/isolated") or "",
        huge_pages="off" if pages is False else str(pages),
        transparent_huge_pages=_core.transparent_huge_pages(),
        memlock=_core.lockable_memory(),
        locked=wanted.lock_process and "lock_process" not in refused,
        idle_latency=latency,
        governor="/".join(sorted(machine.governors())) or "none",
        clock_source=machine.text("sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown",
        virtual=machine.is_virtual(),
        watch="exact" if watched else f"counters read where it was slow ({why_unwatched(watch_error, machine)})",
        processor=machine.processor(),
        python=platform.python_version(),
        numpy=np.__version__,
        rtpool=_core.__version__,
    )


def why_unwatched(error: int, machine: Machine | None = None) -> str:
    """Why the kernel does not let a section watch its thread, and what would make it."""
    name = errno.errorcode.get(error, str(error))
    level = (machine or Machine()).number("proc/sys/kernel/perf_event_paranoid")
    if level is not None and level > 2:
        return f"{name}: sysctl -w kernel.perf_event_paranoid=2 lets it watch"
    return f"{name}: the container or kernel does not permit perf_event_open"


def _ranges(numbers: tuple[int, ...]) -> str:
    """``0-3,8`` for (0, 1, 2, 3, 8)."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
