"""What workers run in the tests of rtpool.dask; imported by them."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

import rtpool
import rtpool.dask
from rtpool.dask import transfer


def made_in_the_pool(count: int) -> np.ndarray[Any, Any]:
    with rtpool.handler(rtpool.dask.shared_pool()):
        return np.arange(count, dtype=np.uint8)


def made_anywhere(count: int) -> np.ndarray[Any, Any]:
    return np.arange(count, dtype=np.uint8)


def look_at(array: np.ndarray[Any, Any]) -> tuple[int, bool, bool]:
    return int(array[:256].sum()), bool(array.flags.writeable), array in rtpool.dask.shared_pool()


def active() -> bool:
    return rtpool.owner(np.ones(5000)) == rtpool.active_pool() is not None


def used_up(mebibytes: int) -> int:
    arrays = [np.ones(1 << 20, np.uint8) for _ in range(mebibytes)]
    return len(arrays)


def end_hard(array: np.ndarray[Any, Any]) -> None:
    assert array in rtpool.dask.shared_pool()
    os.kill(os.getpid(), signal.SIGKILL)


def alive_in_the_pool() -> int:
    pool = rtpool.dask.shared_pool()
    pool.check()
    return pool.stats().current_count


def wait_for_receivers(seconds: float) -> None:
    """How long a handle is kept that nobody opens."""
    transfer.PATIENCE = seconds
