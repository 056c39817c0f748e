"""What a thread's first calls touch for the first time, touched before its loop: its stack, and BLAS's buffers."""

from __future__ import annotations

import mmap
import os
import threading

import numpy as np

from .. import _core
from .probe import Machine

# Bytes: a call from C back into Python takes 4 KiB; the parallel LU factorisation of OpenBLAS spreads over 4 MiB.
_STACK = 5 << 20
# Rows of the matrices that are multiplied: BLAS packs operands into buffers, which float32 shares with float64. Where
# depends on how it divides the work: pages that one size leaves out another one touches.
_BLAS_ROWS = (768, 512, 256)
_BLAS_NAMES = ("blas", "mkl_", "blis", "atlas")


class _Thread(threading.local):
    """What this thread has done already; a forked child has to do it again."""

    process = 0


_thread = _Thread()


def prepare_thread() -> None:
    """Make what the calling thread's code is going to need resident, once a thread.

    Before the thread has a real-time priority: BLAS waits for threads of its own that do not.
    """
    if _thread.process == os.getpid():
        return
    _core.touch_stack(_STACK)
    if _has_blas(Machine()):
        _multiply()
    _thread.process = os.getpid()


def _has_blas(machine: Machine) -> bool:
    """Whether a BLAS library is loaded; without one NumPy's own loops multiply, slowly and without buffers."""
    maps = machine.text("proc/self/maps") or ""
    return any(name in line.rpartition("/")[2] for line in maps.splitlines() for name in _BLAS_NAMES)


def _multiply() -> None:
    # In memory that goes away again, and that neither the pool nor libc sees.
    most = _BLAS_ROWS[0]
    with mmap.mmap(-1, 2 * most * most * np.dtype(np.float64).itemsize) as room:
        a, out = np.frombuffer(room, np.float64).reshape(2, most * most)
        for rows in _BLAS_ROWS:
            square = a[: rows * rows].reshape(rows, rows)
            np.dot(square, square, out=out[: rows * rows].reshape(rows, rows))
        np.dot(a.reshape(most, most), a[:most], out=out[:most])
        del a, out, square
