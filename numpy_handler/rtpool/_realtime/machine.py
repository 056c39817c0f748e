"""The settings of the machine that a section asks for: applied, restored, and explained where they are refused."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from .. import _core
from .._pool.effective import Degradation
from .._support.fixes import errno_text, lift_memlock, lift_rtprio
from .._support.sizes import format_size

SETTINGS = ("cpu", "lock_process", "cpu_latency", "priority", "inherit")  # as the core orders them


class Wanted(NamedTuple):
    """What a section asks of the machine."""

    cpu: tuple[int, ...] | None
    lock_process: bool
    cpu_latency: int  # microseconds; -1: not asked
    priority: int  # 0: not asked
    inherit: bool

    @property
    def nothing(self) -> bool:
        """Whether nothing is asked for."""
        return self.cpu is None and not (self.lock_process or self.priority) and self.cpu_latency < 0


def apply(settings: _core.MachineSettings, wanted: Wanted) -> tuple[Degradation, ...]:
    """Put in force what can be; explain the rest."""
    errors = settings.apply(*wanted)
    return tuple(_explain(name, error, wanted) for name, error in zip(SETTINGS, errors, strict=True) if error)


def _explain(setting: str, error: int, wanted: Wanted) -> Degradation:
    asked, got, reason, fix = 0, 0, "", ""
    if setting == "cpu":
        allowed = sorted(os.sched_getaffinity(0))
        asked, got = len(wanted.cpu or ()), len(allowed)
        reason = f"none of the processors {list(wanted.cpu or ())} may be used here; {allowed} may"
        fix = f"cpu={allowed[-1]}, or let the container or cgroup have them (cpuset.cpus; docker --cpuset-cpus)"
    elif setting == "lock_process":
        limit = _core.lockable_memory()
        got = 0 if limit is None else limit
        reason = f"mlockall needs room for all of the address space, RLIMIT_MEMLOCK is {format_size(got)}"
        fix = lift_memlock(None)
    elif setting == "cpu_latency":
        asked = wanted.cpu_latency
        if error == errno.ENOENT:
            reason = "this kernel has no /dev/cpu_dma_latency"
            fix = "boot with processor.max_cstate=1 intel_idle.max_cstate=0, or run on the host itself"
        else:
            reason = "/dev/cpu_dma_latency may not be written"
            fix = (
                'as root: printf \'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"\\n\''
                " > /etc/udev/rules.d/99-cpu-dma-latency.rules; udevadm trigger; and join that group"
            )
    elif setting == "priority":
        asked, got = wanted.priority, _core.thread_scheduling()[3]
        if got >= asked:
            reason = f"SCHED_FIFO {asked} is permitted, but this control group has no real-time time"
            fix = "sysctl -w kernel.sched_rt_runtime_us=950000, or run outside of the group (docker: --cpu-rt-runtime)"
        else:
            reason = f"SCHED_FIFO {asked} asked for, RLIMIT_RTPRIO is {got}"
            fix = lift_rtprio(asked)
    else:
        reason = "what libraries start cannot be seen here: it begins with the section's cpu and priority"
        fix = "start threads before the section, or inherit=True if they are meant to"
    return Degradation(setting, asked, got, error, f"{reason} ({errno_text(error)})", fix)
