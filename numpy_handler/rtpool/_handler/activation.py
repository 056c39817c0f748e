"""Activation: the whole process draws from a pool."""

from typing import Literal

from .. import _core
from .._pool.objects import kept_by_python, refusal
from .._pool.pool import Pool
from .._support.options import word


def activate(
    pool: Pool | None = None,
    *,
    malloc: Literal["keep", "tune"] = "keep",
    objects: Literal["keep", "pool"] = "keep",
) -> Pool:
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
    objects : {"keep", "pool"}
        ``"pool"`` also lets Python take the arenas in which it keeps its own small objects from the pool, a quarter
        of its `limit` at most. By itself Python gives an arena (1 MiB) back to the kernel as soon as all in it is
        free, so that code which makes and drops many objects pays for the same memory again and again. The pool keeps
        arenas, huge and locked as its options say; their pages come as Python writes them, so that the program holds
        no more than without (sections have them resident beforehand). Arrays get what is kept before the pool grows.
        Objects stay where they are, and later ones go where Python puts them; only arenas come from another place.
        `deactivate` ends it; arenas in use stay valid, for ever. There is nothing to do, and a warning says so, where
        Python has no arenas: ``PYTHONMALLOC=malloc``, sanitizers, and free-threaded builds, whose own allocator keeps
        its memory when the process is started with ``MIMALLOC_PURGE_DELAY=-1``. Explicit huge pages
        (``huge_pages="2MiB"``): a forked child needs as many free ones as it writes to, or it ends with SIGBUS.

    Returns
    -------
    Pool
        The active pool.

    Raises
    ------
    RuntimeError
        If another pool is active.
    TypeError
        For objects in a `SharedPool`, which holds arrays only.

    Warns
    -----
    RuntimeWarning
        If libc has no such settings to tune, or Python no arenas to serve; the pool is active all the same.

    Examples
    --------
    >>> pool = rtpool.activate()
    >>> rtpool.owner(np.empty(1000)) == pool
    True
    >>> rtpool.deactivate()
    """
    tune = word(malloc, "malloc", ("keep", "tune")) == "tune"
    serve = word(objects, "objects", ("keep", "pool")) == "pool"
    if serve and pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"objects='pool' needs a Pool; a {type(pool).__name__} holds arrays only")
    active: Pool = _core.activate(pool)
    reason = serve_objects(active) if serve else None
    if reason is not None and not kept_by_python():
        import warnings

        warnings.warn(f"objects='pool' changes nothing here: {reason}", RuntimeWarning, stacklevel=2)
    if tune and not _core.tune_malloc():
        import warnings

        text = "malloc='tune' changes nothing here: this libc's malloc takes no such settings"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return active


def serve_objects(pool: Pool) -> str | None:
    """Let Python's arenas come from the pool until `deactivate`; why not, if they cannot."""
    if _core.activate_objects(pool):
        return None
    return refusal() or "another arena allocator was set after rtpool's, or too many pools serve already"


def deactivate() -> None:
    """Let NumPy's default handler draw from NumPy's own allocator again; does nothing if no pool is active.

    Arrays made meanwhile stay valid and are freed where they came from, and so do Python's objects. Settings of
    ``malloc="tune"`` stay.
    """
    _core.deactivate_objects()
    _core.deactivate()


def active_pool() -> Pool | None:
    """Give the pool the whole process draws from, `None` if there is none."""
    active: Pool | None = _core.active_pool()
    return active
