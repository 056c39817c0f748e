"""Handlers: which memory the arrays made in a context get."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import _core
from .._pool.pool import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._shared import SharedPool

F = TypeVar("F", bound=Callable[..., Any])


class handler(_core.Handler):
    """Let arrays made in this context get their data from a pool; context manager and decorator.

    It holds in the thread or asyncio task that enters it, and in tasks that one starts; it does not hold in other
    threads, for which each enters it for itself, or `activate` serves all. It nests, one object may be entered again
    and by many threads and tasks at once, and leaving it restores what was set before, also after an exception. Arrays
    outlive it.

    Parameters
    ----------
    pool : Pool or SharedPool, optional
        Default: `rtpool.default_pool()`.
    per_thread : bool, default False
        Each thread that enters gets a private pool with the options of `pool`, made when it first enters this object
        and kept for its next times. No other thread allocates from it.

    Returns
    -------
    As the target of ``with ... as``: the pool.

    Notes
    -----
    As a decorator, ``@rtpool.handler(...)``, it holds while the body of the function runs. For generators and
    asynchronous generators this means: between being resumed and the next ``yield``, but not in the caller. For
    coroutines: until they are finished, in the task that runs them.

    A generator suspended *inside* a ``with rtpool.handler():`` of its body leaves it in force in its caller, as
    `decimal.localcontext` does; use the decorator there. When such a generator ends while another handler is in
    force, that one stays in force.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> with rtpool.handler() as pool:
    ...     total = (np.arange(1000.0) * 2).sum()
    >>> @rtpool.handler(rtpool.Pool("4 MiB"))
    ... def step(frame):
    ...     return frame.astype(float) / 255
    """

    __slots__ = ()

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator or asynchronous generator."""
        import inspect

        if isinstance(function, type) or not callable(function):
            raise TypeError(f"rtpool.handler decorates functions, not {function!r}; decorate the methods of a class")
        if inspect.isasyncgenfunction(function):
            decorate = _around_async_generator
        elif inspect.iscoroutinefunction(function):
            decorate = _around_coroutine
        elif inspect.isgeneratorfunction(function):
            decorate = _around_generator
        else:
            decorate = _around_function
        return cast(F, functools.wraps(function)(decorate(self, function)))

    def __repr__(self) -> str:
        of = "the default pool" if self._source is None else repr(self._source)
        return f"<rtpool.handler of {of}{', one for each thread' if self.per_thread else ''}>"


def _around_function(scope: handler, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return function(*args, **kwargs)

    return wrapper


def _around_coroutine(scope: handler, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return await function(*args, **kwargs)

    return wrapper


def _around_generator(scope: handler, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        resume, value = body.send, None
        while True:
            try:
                with scope:
                    result = resume(value)
            except StopIteration as end:
                return end.value
            try:
                resume, value = body.send, (yield result)
            except GeneratorExit:
                with scope:
                    body.close()
                raise
            except BaseException as error:
                resume, value = body.throw, error

    return wrapper


def _around_async_generator(scope: handler, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        resume, value = body.asend, None
        while True:
            try:
                with scope:
                    result = await resume(value)
            except StopAsyncIteration:
                return
            try:
                resume, value = body.asend, (yield result)
            except GeneratorExit:
                with scope:
                    await body.aclose()
                raise
            except BaseException as error:
                resume, value = body.athrow, error

    return wrapper


def set_handler(h: object) -> object:
    """Set the handler of NumPy in this context and leave it set: NumPy's ``PyDataMem_SetHandler``.

    Parameters
    ----------
    h : capsule, Pool, SharedPool or None
        Any capsule named ``"mem_handler"``, also another package's; a pool; or `None` for NumPy's own handler.

    Returns
    -------
    capsule
        What was set before.

    Raises
    ------
    TypeError, ValueError
        For other objects, and for capsules of another name.

    Examples
    --------
    >>> before = rtpool.set_handler(rtpool.Pool("1 MiB"))
    >>> _ = rtpool.set_handler(before)
    """
    return _core.set_handler(h)


def get_handler(array: "NDArray[Any] | None" = None) -> object | None:
    """Give the handler that is set in this context, or the one an array's data came from.

    Parameters
    ----------
    array : ndarray, optional

    Returns
    -------
    capsule or None
        `None` for an array that does not own its data, such as a view.
    """
    return _core.get_handler(array)


def owner(array: "NDArray[Any]") -> "Pool | SharedPool | None":
    """Give the pool that holds an array's data, `None` if there is none.

    The address of the data decides, so views answer as the array they look at, and arrays made under `activate` answer
    as those made in a `handler`. Data that the default allocator had to provide (``when_full="fallback"``) is in no
    pool.

    Examples
    --------
    >>> with rtpool.handler() as pool:
    ...     a = np.empty(100)
    >>> rtpool.owner(a[::2]) == pool, rtpool.owner(np.empty(3))
    (True, None)
    """
    found: Pool | SharedPool | None = _core.owner(array)
    return found
