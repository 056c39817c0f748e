"""BLAS calls of several threads: a section makes the buffers of as many callers at once as there are threads."""

from __future__ import annotations

import ctypes

import pytest
from numpy.linalg import _umath_linalg


def exports_buffers() -> bool:
    """Whether this NumPy's BLAS is an OpenBLAS that lets its buffers be asked for."""
    return hasattr(ctypes.CDLL(_umath_linalg.__file__), "blas_memory_alloc")


@pytest.mark.skipif(not exports_buffers(), reason="this NumPy's BLAS is not OpenBLAS")
def test_as_many_callers_at_once_as_there_are_threads_find_their_buffers(run_python) -> None:
    """Buffers are held here as a routine holds its own while it is preempted."""
    run_python(
        """
        import ctypes, resource, threading
        import numpy as np
        import rtpool
        from numpy.linalg import _umath_linalg

        blas = ctypes.CDLL(_umath_linalg.__file__)
        blas.blas_memory_alloc.restype = ctypes.c_void_p
        blas.blas_memory_free.argtypes = [ctypes.c_void_p]
        a = np.ones((256, 256))
        done = threading.Event()
        others = [threading.Thread(target=done.wait) for _ in range(5)]
        for one in others: one.start()
        def mappings():
            with open("/proc/self/maps") as file:
                return sum(int(line.split("-")[1].split()[0], 16) - int(line.split("-")[0], 16) for line in file)
        product = np.empty_like(a)
        with rtpool.realtime(warmup=3, iterations=1, pool=rtpool.Pool()) as rt:
            for tick in rt:
                np.matmul(a, a, out=product)
                if tick.warmup:
                    continue
                size, held = mappings(), []
                for _ in range(5):
                    held.append(blas.blas_memory_alloc(0))
                    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                    np.matmul(a, a, out=product)  # in a buffer that nobody has used before
                    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                    assert faults == 0, faults
                assert mappings() == size
                for one in held: blas.blas_memory_free(one)
        done.set()
        """,
        OPENBLAS_NUM_THREADS="1",
    )
