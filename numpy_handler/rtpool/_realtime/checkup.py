"""What `doctor` looks at: each setting of a machine that real-time loops depend on, and the fix where it is unfit."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .. import _core
from .._support.fixes import lift_memlock, lift_rtprio
from .._support.huge_pages import transparent_fix, transparent_state
from .._support.sizes import format_size
from .probe import Machine


@dataclass(frozen=True)
class Finding:
    """What was found of one thing: `verdict` is ``"ok"``, ``"warn"`` or ``"fail"``; no `fix` where all is well."""

    what: str
    found: str
    verdict: str
    fix: str = ""


def examine(machine: Machine | None = None, *, seconds: float = 1.0) -> list[Finding]:
    """Look at everything; `seconds` are spent on measuring wake-ups."""
    looked_at = Machine() if machine is None else machine
    findings = [check(looked_at) for check in _CHECKS]
    if seconds > 0:
        findings.append(_blas_threads())  # before wake-ups, which have them at rest
        findings.append(_wake_ups(seconds))
    return findings


def _preemption(machine: Machine) -> Finding:
    model = machine.preemption()
    if model in ("PREEMPT_RT", "full", "lazy"):
        verdict, fix = "ok", ""
    else:
        package = f"linux-image-rt-{'arm64' if platform.machine() == 'aarch64' else 'amd64'}"
        verdict, fix = "warn", f"boot with preempt=full, or install a PREEMPT_RT kernel (Debian: {package})"
    return Finding("kernel preemption", model, verdict, fix)


def _priority(machine: Machine) -> Finding:
    allowed = _core.thread_scheduling()[3]
    if allowed >= 1:
        return Finding("real-time priority", f"SCHED_FIFO up to {allowed}", "ok")
    return Finding("real-time priority", "not permitted (RLIMIT_RTPRIO 0)", "fail", lift_rtprio(95))


def _throttling(machine: Machine) -> Finding:
    runtime, period = (machine.number(f"proc/sys/kernel/sched_rt_{name}_us") for name in ("runtime", "period"))
    if runtime is None or period is None or runtime < 0 or runtime >= period:
        return Finding("real-time throttling", "off" if runtime is not None else "unknown", "ok")
    found = f"a SCHED_FIFO loop that never waits is stopped {(period - runtime) / 1000:g} ms in {period / 1e6:g} s"
    return Finding(
        "real-time throttling", found, "warn", "sysctl -w kernel.sched_rt_runtime_us=-1, if loops may not wait"
    )


def _memlock(machine: Machine) -> Finding:
    limit = _core.lockable_memory()
    if limit is None or _has_ipc_lock(machine):
        return Finding("locked memory", "unlimited" if limit is None else "CAP_IPC_LOCK: unlimited", "ok")
    return Finding("locked memory", f"at most {format_size(limit)}", "warn", lift_memlock(None))


def _has_ipc_lock(machine: Machine) -> bool:
    for line in (machine.text("proc/self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 14 & 1)
    return False


def _swap(machine: Machine) -> Finding:
    swap = machine.swap_kib()
    if swap == 0:
        return Finding("swap", "none", "ok")
    return Finding("swap", format_size(swap * 1024), "warn", "use lock_process=True in sections, or swapoff -a")


def _proactive_reclaim(machine: Machine) -> Finding:
    switches = machine.reclaimers()
    if not switches:
        return Finding("proactive reclaim", "off", "ok")
    # Read from disk again: a major fault. Without swap these are the pages of files: code of programs and libraries.
    found = "on (DAMON): pages that nobody uses for a while leave memory, and fault when they are used again"
    turn_off = "; ".join(f"echo {'N' if name.endswith('enabled') else 'off'} > {name}" for name in switches)
    return Finding("proactive reclaim", found, "warn", f"use lock_process=True in sections, or {turn_off} (as root)")


def _governor(machine: Machine) -> Finding:
    governors = machine.governors()
    if governors <= {"performance"}:
        return Finding("frequency governor", "performance" if governors else "none (fixed, or the host's)", "ok")
    return Finding(
        "frequency governor", "/".join(sorted(governors)), "warn", "cpupower frequency-set -g performance (as root)"
    )


def _idle_states(machine: Machine) -> Finding:
    latency = machine.deepest_idle_latency()
    if latency is None or latency <= 10:
        found = "none known (or the host's)" if latency is None else f"the deepest takes {latency} us to leave"
        return Finding("idle states", found, "ok")
    found = f"the deepest takes {latency} us to leave"
    if os.access("/dev/cpu_dma_latency", os.W_OK):
        return Finding("idle states", f"{found}; cpu_latency=0 in sections keeps out of it", "ok")
    return Finding(
        "idle states", found, "warn", "chmod o+rw /dev/cpu_dma_latency (as root) and use cpu_latency=0 in sections"
    )


def _huge_pages(machine: Machine) -> Finding:
    state = transparent_state()
    if state in ("always", "madvise"):
        return Finding("huge pages", state, "ok")
    return Finding("huge pages", state, "warn", transparent_fix())


def _defragmentation(machine: Machine) -> Finding:
    chosen = machine.chosen("sys/kernel/mm/transparent_hugepage/defrag")
    if chosen != "always":
        return Finding("huge page defrag", chosen or "none", "ok")
    fix = "echo defer+madvise > /sys/kernel/mm/transparent_hugepage/defrag (as root)"
    return Finding("huge page defrag", "always: page faults may wait for memory to be compacted", "warn", fix)


def _gathering(machine: Machine) -> Finding:
    setting = "sys/kernel/mm/transparent_hugepage/enabled"
    daemon = "sys/kernel/mm/transparent_hugepage/khugepaged/defrag"
    if machine.chosen(setting) != "always" or machine.number(daemon) == 0:
        return Finding("huge page gathering", "of memory that asks for it only", "ok")
    # A frozen pool leaves nothing to gather; libc's heap is not ours to ask it for.
    found = "of any memory (khugepaged): who touches libc's heap meanwhile faults and waits"
    return Finding("huge page gathering", found, "warn", f"echo madvise > /{setting}, or echo 0 > /{daemon} (as root)")


def _same_page_merging(machine: Machine) -> Finding:
    if machine.number("sys/kernel/mm/ksm/run") == 1:
        return Finding("page merging (KSM)", "on: merged pages fault when written", "warn",
                       "echo 2 > /sys/kernel/mm/ksm/run (as root)")  # fmt: skip
    return Finding("page merging (KSM)", "off", "ok")


def _numa_balancing(machine: Machine) -> Finding:
    nodes = sum(1 for _ in machine.directories("sys/devices/system/node", "node"))
    if nodes > 1 and machine.number("proc/sys/kernel/numa_balancing"):
        found = f"on, {nodes} nodes: resident pages are unmapped now and then to see who uses them, and fault"
        return Finding("NUMA balancing", found, "warn", "sysctl -w kernel.numa_balancing=0")
    return Finding("NUMA balancing", "off" if nodes > 1 else "one node", "ok")


def _clock(machine: Machine) -> Finding:
    source = machine.text("sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    resolution = time.clock_getres(time.CLOCK_MONOTONIC)
    if resolution > 1e-6:
        return Finding("clock", f"{source}, resolution {resolution * 1e6:g} us", "fail", "boot without highres=off")
    if source in ("hpet", "acpi_pm", "jiffies", "refined-jiffies"):
        return Finding("clock", f"{source}: each look at it costs a microsecond or more", "warn",
                       "boot with tsc=reliable, if the processor's TSC is (see dmesg)")  # fmt: skip
    return Finding("clock", source, "ok")


def _processors(machine: Machine) -> Finding:
    allowed = len(os.sched_getaffinity(0))
    isolated = machine.text("sys/devices/system/cpu/isolated")
    found = f"{allowed} to run on{f', isolated: {isolated}' if isolated else ', none isolated'}"
    if allowed > 1 or isolated:
        return Finding("processors", found, "ok")
    return Finding("processors", found, "warn", "give this machine or container a second processor")


def _load(machine: Machine) -> Finding:
    load, allowed = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= allowed * 0.8:
        return Finding("load", f"{load:.1f} on {allowed} processors", "ok")
    fix = "stop other work, or set it apart: isolcpus= at boot, and cpu= in sections"
    return Finding("load", f"{load:.1f} on {allowed} processors", "warn", fix)


def _virtual(machine: Machine) -> Finding:
    virtual = machine.is_virtual()
    if not virtual:
        return Finding("virtual machine", "no" if virtual is False else "unknown", "ok")
    fix = "run on the host, or pin the virtual processors there to processors of their own"
    return Finding("virtual machine", "yes: the host decides when processors run", "warn", fix)


def _watching(machine: Machine) -> Finding:
    loop = _core.Loop(0, False, 0, 0, 1, -1, None)
    loop.start(True)
    for _ in loop:
        pass
    loop.finish()
    if loop.totals()[7]:
        found = "the kernel lets sections watch switches and faults, and where these come from"
        if loop.faults()[4] == "user":
            found += "; not those it takes in calls (sysctl -w kernel.perf_event_paranoid=1 shows them)"
        return Finding("per-iteration counts", found, "ok")
    level = machine.number("proc/sys/kernel/perf_event_paranoid")
    fix = (
        "sysctl -w kernel.perf_event_paranoid=2"
        if level is not None and level > 2
        else "container: --cap-add PERFMON, or a seccomp profile that permits perf_event_open"
    )
    return Finding("per-iteration counts", "refused: counts of slow iterations cover several", "warn", fix)


# Seconds until nobody looks for work any more, OpenBLAS's 2 ** 28 ticks of a processor of 1 GHz included.
_REST = 0.3
_PRODUCT = 400  # rows and columns of a product that BLAS divides among its threads


def _blas_threads() -> Finding:
    """How long BLAS's threads look for more work after a product, measured."""
    import numpy as np

    factor = np.ones((_PRODUCT, _PRODUCT))
    product = np.empty_like(factor)
    np.dot(factor, factor, out=product)
    before = _time_of_others()
    time.sleep(_REST)
    spent = _time_of_others() - before
    if spent < 0.01:
        return Finding("BLAS threads", "at rest between products", "ok")
    found = f"look for work for {spent * 1000:.0f} ms of processor time after a product, beside the loop"
    fix = "OPENBLAS_THREAD_TIMEOUT=4 and OMP_WAIT_POLICY=passive in the environment, or OPENBLAS_NUM_THREADS=1"
    return Finding("BLAS threads", found, "warn", fix)


def _time_of_others() -> float:
    """Seconds of processor time that the other threads of this process have had."""
    own = threading.get_native_id()
    spent = 0
    for task in os.listdir("/proc/self/task"):
        if int(task) != own:
            with contextlib.suppress(OSError, ValueError), open(f"/proc/self/task/{task}/schedstat") as file:
                spent += int(file.read().split()[0])
    return spent * 1e-9


def _wake_ups(seconds: float) -> Finding:
    """How late a sleeping thread of this process starts, measured."""
    loop = _core.Loop(1_000_000, False, 0, 0, -1, round(seconds * 1e9), None)
    own = _core.MachineSettings()
    priority = min(_core.thread_scheduling()[3], 50)
    own.apply(None, False, -1, priority, False)
    try:
        loop.start(True)
        for _ in loop:
            pass
        loop.finish()
    finally:
        own.restore()
    late = loop.lateness()
    policy = f"SCHED_FIFO {priority}" if priority else "ordinary priority"
    found = (
        f"late by {late.percentile(50) * 1e6:.0f} us (median), {late.percentile(99) * 1e6:.0f} us (p99),"
        f" {late.max * 1e6:.0f} us (longest of {late.count:,} at 1 kHz, {policy})"
    )
    if late.max < 200e-6:
        return Finding("wake-ups", found, "ok")
    fix = "see the warnings above; then measure again for longer: --seconds 60"
    return Finding("wake-ups", found, "warn" if late.max < 1e-3 else "fail", fix)


_CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    _preemption,
    _priority,
    _throttling,
    _memlock,
    _swap,
    _proactive_reclaim,
    _governor,
    _idle_states,
    _huge_pages,
    _defragmentation,
    _gathering,
    _same_page_merging,
    _numa_balancing,
    _clock,
    _processors,
    _load,
    _virtual,
    _watching,
)
