"""One contestant's process: reads what to do, says `ready`, and does a pass for each line it is given."""

from __future__ import annotations

import json
import sys
from typing import Any

from .. import _core
from .._pool.default import default_pool
from .._pool.plan import Plan
from .._pool.pool import Pool
from . import script


def _resident(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _of_files() -> int:
    """Those of a file system in memory count as shared; nothing else here is."""
    return _resident("RssFile") + _resident("RssShmem")


def _begin_peak() -> bool:
    """Let the kernel's highest resident size begin anew."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _target(asked: dict[str, Any]) -> Any:
    if asked["kind"] != "pool":
        return "malloc" if asked["kind"] == "malloc" else None
    pool = default_pool() if asked["options"] is None else Pool(**asked["options"])
    if asked["plan"] is not None:
        pool.prepare(Plan.load(asked["plan"]))
    return pool


def main(arguments: list[str]) -> int:
    folder, asked = arguments[0], json.loads(arguments[1])
    columns = script.load(folder)
    for column in columns:
        column[::64].sum()  # mapped here, not in the first pass
    what, slot, turn, order, begins = columns
    capsule = _core._replay_open(what, slot, turn, order, begins, asked["slots"])
    begun, files = _resident("VmRSS"), _of_files()
    target = _target(asked)
    # Preparing a pool makes the program's own files resident as well: that is no memory of an allocator's.
    begun += max(_of_files() - files, 0)
    print(json.dumps({"ready": True, "begun": begun, "prepared": max(_resident("VmRSS") - begun, 0)}), flush=True)
    for _ in sys.stdin:
        stats = target.stats() if asked["kind"] == "pool" else None
        peak_known = _begin_peak()
        took, minor, major, resident, kept, failures = _core._replay_pass(capsule, target, asked["write"])
        peak = _resident("VmHWM") if peak_known else 0
        figures: dict[str, Any] = {
            "nanoseconds": took,
            "faults": minor + major,
            "peak": max(peak - begun, 0) if peak_known else None,
            "resident": max(resident - begun, 0),
            "kept": max(kept - begun, 0),
            "failures": failures,
        }
        if stats is not None:
            made = target.stats() - stats
            figures |= {"misses": made.misses, "fallbacks": made.fallbacks, "pool_kernel_calls": made.kernel_calls}
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
