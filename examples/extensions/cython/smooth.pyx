# cython: language_level=3, freethreading_compatible=True
"""A running mean, its result in the memory that np.empty would use."""

cimport numpy as np
cimport rtpool

np.import_array()
rtpool.import_rtpool()


def smooth(const double[::1] signal not None, Py_ssize_t width):
    """Means of `width` values in a row."""
    cdef np.npy_intp count = signal.shape[0] - width + 1
    if width < 1 or count < 1:
        raise ValueError(f"no {width} values in a row among {signal.shape[0]}")
    cdef rtpool.pool *pool = rtpool.current_pool()
    cdef double *means = <double *>rtpool.allocate(pool, count * sizeof(double))
    try:
        if means == NULL:
            raise MemoryError(f"no memory for {count} means")
        with nogil:
            _smooth(&signal[0], width, means, count)
        array = np.PyArray_SimpleNewFromData(1, &count, np.NPY_DOUBLE, means)
        np.set_array_base(array, rtpool.block_capsule(pool, means))
        means = NULL  # the array's
        return array
    finally:
        rtpool.release(pool, means, 0)
        rtpool.release_pool(pool)


cdef void _smooth(const double *signal, Py_ssize_t width, double *means, Py_ssize_t count) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(width):
        total += signal[i]
    for i in range(count):
        means[i] = total / width
        if i + 1 < count:
            total += signal[i + width] - signal[i]
