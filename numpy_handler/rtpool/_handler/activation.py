"""Activation: the whole process draws from a pool."""

from typing import Literal

from .. import _core
from .._pool.pool import Pool
from .._support.options import word


def activate(pool: Pool | None = None, *, malloc: Literal["keep", "tune"] = "keep") -> Pool:
    """Let NumPy's default handler draw from a pool, in every thread that exists or will exist.

    Arrays made before stay valid and are freed where they came from. Handlers set in a context (`handler`,
    `set_handler`) go before it. NumPy's name for the handler stays ``"default_allocator"``.

    Parameters
    ----------
    pool : Pool or SharedPool, optional
        Default: `rtpool.default_pool()`. It is kept until the process ends.
    malloc : {"keep", "tune"}
        ``"tune"`` also sets libc's own malloc to keep its memory, for what bypasses every handler: scratch of sorts
        and iterators, LAPACK's work arrays, pandas' hash tables. It then never gives memory back to the kernel
        (``M_TRIM_THRESHOLD``), takes blocks of every size from its heaps (``M_MMAP_MAX``) and grows these in large
        steps (``M_TOP_PAD``). This changes nothing but speed and resident size. It lasts until the process ends, also
        after `deactivate`: libc does not tell what the settings were. Not covered: blocks above 64 MiB that other
        threads than the main one take from libc, and memory that libraries map by themselves.

    Returns
    -------
    Pool
        The active pool.

    Raises
    ------
    RuntimeError
        If another pool is active.

    Warns
    -----
    RuntimeWarning
        If libc has no such settings to tune; the pool is active all the same.

    Examples
    --------
    >>> pool = rtpool.activate()
    >>> rtpool.owner(np.empty(1000)) == pool
    True
    >>> rtpool.deactivate()
    """
    tune = word(malloc, "malloc", ("keep", "tune")) == "tune"
    active: Pool = _core.activate(pool)
    if tune and not _core.tune_malloc():
        import warnings

        text = "malloc='tune' changes nothing here: this libc's malloc takes no such settings"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return active


def deactivate() -> None:
    """Let NumPy's default handler draw from NumPy's own allocator again; does nothing if no pool is active.

    Arrays made meanwhile stay valid and are freed where they came from. Settings of ``malloc="tune"`` stay.
    """
    _core.deactivate()


def active_pool() -> Pool | None:
    """Give the pool the whole process draws from, `None` if there is none."""
    active: Pool | None = _core.active_pool()
    return active
