"""`os.sched_getscheduler` and `os.sched_setscheduler` by the kernel, where libc refuses its own, as musl does."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_SET, _GET = {"aarch64": (119, 120)}.get(os.uname().machine, (144, 145))
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(*arguments: Any) -> int:
    done = int(_LIBC.syscall(*arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def _set(task: int, policy: int, parameters: os.sched_param) -> None:
    _call(_SET, task, policy, ctypes.byref(ctypes.c_int(parameters.sched_priority)))


try:
    os.sched_getscheduler(0)
except OSError:
    os.sched_getscheduler = lambda task: _call(_GET, task)
    os.sched_setscheduler = _set
