"""Programs that work in a limit: what they do, and processes of their own to do it in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

# What a program does in the limit: fills pools until they refuse, loses nothing, goes on.
WORK = """
import os, resource
import numpy as np
import rtpool
MIB = 1 << 20
def fill(most):
    kept = []
    try:
        while len(kept) < most:
            kept.append(np.full(MIB, len(kept) & 255, np.uint8))
    except MemoryError:
        pass
    return kept
def verify(kept):
    # Without a temporary array: there may be no memory for one.
    assert all(a.min() == a.max() == i & 255 for i, a in enumerate(kept)), "lost"
"""


def run(code: str, status: int = 0, prefix: tuple[str, ...] = (), **environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
    command = [*prefix, sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
