"""Calling something at the end of a worker of `multiprocessing`, which ends without what is called at exit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def at_end_of_worker(function: Callable[[], object]) -> None:
    """Have `function` called, if this process is a worker, when it ends."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, function, exitpriority=-100)


def once_set_up_as_worker(owner: T, function: Callable[[T], object]) -> None:
    """Have ``function(owner)`` called once this process is set up as a worker, if it becomes one.

    That begins with forgetting whatever was to be called at its end. `owner` is held weakly.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(owner, function)
