"""What a thread's first calls touch for the first time, touched before its loop.

Its stack, libc's heap, BLAS's buffers, and what libc gives a thread that it starts.
"""

from __future__ import annotations

import mmap
import os
import threading

import numpy as np

from .. import _core
from .._pool.pool import Pool

# Bytes: a call from C back into Python takes 4 KiB; the parallel LU factorisation of OpenBLAS spreads over 4 MiB.
_STACK = 5 << 20
# Threads that may be begun in a loop at once: libc keeps 40 MiB of stacks, of 8 MiB each where nobody says otherwise.
_THREADS = 4
# BLAS packs both operands into buffers, which float32 shares with float64: of the first a piece of some hundred rows
# and columns, of the second one of as many rows and all columns. A narrow second operand fills the one, a flat first
# operand the other, for a fourteenth of the work of square ones. How the work is divided depends on the sizes and on
# the processor and on the number of threads: pages that one of these leaves out another one touches, or, where OpenBLAS
# lets its buffers be asked for, `make_program_resident` does. In one thread a narrow operand fills next to nothing.
_BLAS_ROWS = (768, 512)
_BLAS_DEPTHS = (256, 384)
_BLAS_NARROW = 32
# Where they cannot be asked for (NumPy 2.5 hides the functions) two larger products fill the second buffer, which
# begins elsewhere for complex numbers: 4 MiB. They have more columns than a piece has, or all rows would be packed into
# the same few pages again and again. Some 30 ms, once.
_BLAS_LARGE = (1408, 384, 520)
_BLAS_COMPLEX = (1200, 192, 330)

# Bytes of libc's heap beyond what a warm-up took: the buffers of NumPy's iterators take up to 128 KiB an operand, and
# LAPACK takes copies of whole matrices.
_SPARE_ROOM = 4 << 20
_MOST_ROOM = 16 << 20


class HeapRoom:
    """Resident room in the calling thread's heap of libc, in one piece: what a warm-up has taken of it, and some more.

    What an iteration asks libc for finds the memory that the one before gave back, until something that stays has come
    to lie there: then it reaches beyond, where nobody has been yet.
    """

    __slots__ = ("_before", "_bytes")

    def __init__(self, pool: Pool) -> None:
        self._bytes = _SPARE_ROOM
        self.begin(pool)

    def begin(self, pool: Pool) -> None:
        """Count what is taken from here on."""
        self._before = _outside(pool)

    def make(self, pool: Pool) -> None:
        """Make room for as much as has been taken since then, or as there was before if that is more."""
        taken = _outside(pool) - self._before
        self._bytes = max(self._bytes, min(taken, _MOST_ROOM) + _SPARE_ROOM)
        _core.touch_malloc(self._bytes)


def _outside(pool: Pool) -> int:
    """Bytes of this process's own resident memory that are not the pool's: mostly libc's."""
    try:
        with open("/proc/self/statm", "rb") as file:
            resident, shared = map(int, file.read().split()[1:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * mmap.PAGESIZE - pool.stats().capacity_bytes


class _Thread(threading.local):
    """What this thread has done already; a forked child has to do it again."""

    process = 0


_thread = _Thread()
_prepared = 0  # the process in which a thread has prepared what all threads share


def prepare_thread(*, locked: bool = False) -> None:
    """Make what the calling thread's code is going to need resident, once a thread.

    Before the thread has a real-time priority: BLAS waits for threads of its own that do not. `locked`: all of the
    process is going to be locked, and stacks as they are mapped; those that libc kept would be, too, from end to end.
    """
    global _prepared
    process = os.getpid()
    if _thread.process == process:
        return
    _core.touch_stack(_STACK)
    loaded, shared = _core.blas_libraries()
    # Without a library NumPy's own loops multiply, slowly and without buffers. OpenBLAS gives its buffers to whoever
    # calls: one thread's call has used them for all (`make_program_resident` has as many ready as there are threads).
    if loaded and not (shared == loaded and _prepared == process):
        _multiply()
        if shared != loaded:
            _multiply_more()
    # Stacks and heaps are at hand for the threads of all of the process.
    if _prepared != process and not locked:
        _core.rehearse_threads(_THREADS, threading.stack_size())
    _prepared = process
    _thread.process = process


def _multiply() -> None:
    # In memory that goes away again, and that neither the pool nor libc sees.
    most, deepest = max(_BLAS_ROWS), max(_BLAS_DEPTHS)
    with mmap.mmap(-1, 3 * most * deepest * np.dtype(np.float64).itemsize) as room:
        a, b, out = np.frombuffer(room, np.float64).reshape(3, most * deepest)
        for depth in _BLAS_DEPTHS:
            for rows, columns in [*((rows, _BLAS_NARROW) for rows in _BLAS_ROWS), (_BLAS_NARROW, most)]:
                np.dot(
                    a[: rows * depth].reshape(rows, depth),
                    b[: depth * columns].reshape(depth, columns),
                    out=out[: rows * columns].reshape(rows, columns),
                )
        np.dot(a.reshape(most, deepest), b[:deepest], out=out[:most])
        del a, b, out


def _multiply_more() -> None:
    for (rows, depth, columns), kind in ((_BLAS_LARGE, np.float64), (_BLAS_COMPLEX, np.complex128)):
        sizes = (rows * depth, depth * columns, rows * columns)
        with mmap.mmap(-1, sum(sizes) * np.dtype(kind).itemsize) as room:
            a, b, out = np.split(np.frombuffer(room, kind), np.cumsum(sizes[:-1]))
            np.dot(a.reshape(rows, depth), b.reshape(depth, columns), out=out.reshape(rows, columns))
            del a, b, out


def look_through_the_stack() -> None:
    """Have NumPy look through the calling thread's stack for the first time."""
    # NumPy walks the C stack before it reuses a temporary of 256 KiB or more; its first walk loads the unwinding tables
    # of all libraries, which takes a millisecond that the first iteration shall not pay.
    a = np.ones(1 << 16, np.float32)
    _ = ((a + a) * a - a) / a + -(a + a)
    _ = np.abs(a - a) > (a + a) * np.float32(2)
