"""The loops of bench/steady.py for a few seconds, watched from outside: no memory call, no page fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from libcs import keeps_memory

BENCH = Path(__file__).resolve().parents[3] / "bench"
LOOPS = ("dictionaries", "lists", "table", "contours", "controller", "workers")


def watch(loop: str) -> Any:
    options = ["--seconds", "3", "--warmup", "60", "--only", "rtpool", "--dry", "--loops", loop]
    command = [sys.executable, str(BENCH / "steady.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    found = json.loads(done.stdout)[loop]
    if isinstance(found, str):
        pytest.skip(found)
    return found["rtpool"]


@keeps_memory
@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_the_whole_process_makes_no_memory_call(loop: str) -> None:
    one = watch(loop)
    assert one["iterations"] > 0 and not any(one["calls"].values()), (one["calls"], one["report"])
    if one["faults"]:
        # A kernel short of contiguous memory moves resident pages, and whoever comes meanwhile faults: not twice.
        again = watch(loop)
        assert again["faults"] == 0 and not any(again["calls"].values()), (one["report"], again["report"])
