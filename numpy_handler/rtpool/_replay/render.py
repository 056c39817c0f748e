"""What a replay came to, as text."""

from __future__ import annotations

from collections.abc import Sequence

from .._support.sizes import format_size
from .._support.table import columns
from .compare import Outcome
from .script import Script

NOT_COUNTED = (
    "kernel calls are not counted: neither perf (tracepoints of system calls) nor strace can watch a process here"
)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    return "-" if value is None else format_size(value)


def _time(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3g} ms" if nanoseconds < 1e9 else f"{nanoseconds / 1e9:.3g} s"


def head(script: Script) -> str:
    """What is replayed, in a line or two."""
    threads = f"{script.recorded_threads:,} thread" + ("s" if script.recorded_threads != 1 else "")
    lines = [
        f"{script.operations:,} operations of {threads}: {script.allocations:,} allocations, "
        f"at most {format_size(script.peak_bytes)} alive"
    ]
    if script.unmatched:
        lines.append(
            f"{script.unmatched:,} blocks whose allocation or free is not in the trace were left out or ended early"
        )
    return "\n".join(lines)


def table(outcomes: Sequence[Outcome], missing: dict[str, str], script: Script, by: str, own: float) -> str:
    """Counts and bytes first, times last; the first pass and, behind the stroke, the last one."""

    def both(outcome: Outcome, show: str) -> str:
        return f"{_count(getattr(outcome.first, show))} / {_count(getattr(outcome.last, show))}"

    rows = [["", "faults", "kernel calls", "misses", "fallbacks", "peak", "resident", "kept", "time", "ns each"]]
    for one in outcomes:
        last = one.last
        rows.append(
            [
                one.name,
                both(one, "faults"),
                both(one, "kernel_calls"),
                both(one, "misses"),
                both(one, "fallbacks"),
                _bytes(max((f.peak for f in (one.first, last) if f.peak is not None), default=None)),
                _bytes(last.resident),
                _bytes(last.kept),
                f"{_time(one.first.nanoseconds)} / {_time(last.nanoseconds)}",
                f"{last.nanoseconds / script.operations:.3g}",
            ]
        )
    lines = [*columns(rows, left=1), ""]
    lines.append(
        "first pass / last pass in the same process. peak, resident at its end, kept when all has been freed: above the"
    )
    lines.append("process before. Faults, kernel calls and bytes are the process's, misses and fallbacks the pool's.")
    if not by:
        lines.append(NOT_COUNTED)
    else:
        lines.append(f"kernel calls: mmap, munmap, brk, mremap, madvise of all threads, counted from outside by {by}")
    lines.append(
        f"the replay's own bookkeeping, in the times above: {own:.3g} ns an operation, {1e3 / own:.3g} million a second"
    )
    failed = [f"{one.name} left {one.last.failures:,} requests without memory" for one in outcomes if one.last.failures]
    lines += failed
    lines += [f"{name} is left out: {why}" for name, why in missing.items()]
    return "\n".join(lines)
