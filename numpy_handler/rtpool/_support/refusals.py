"""Why a pool did not serve a request, told with the `MemoryError` that NumPy raises for it.

NumPy sees a handler that answers nothing and says "Unable to allocate". The core remembers the request for its thread;
what a pool has to say is added as a note (Python 3.11 and newer), or as the error's cause.
"""

import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from .. import _core


class Refusing(Protocol):
    """A pool that can say why it refused a request of so many bytes.

    `error` is what the kernel answered, 0 where what is in use leaves no room; `passed_on`: its fallback had no memory
    either.
    """

    def _key(self) -> int: ...
    def _refusal(self, size: int, error: int, passed_on: bool) -> str: ...


_pools: "weakref.WeakValueDictionary[int, Refusing]" = weakref.WeakValueDictionary()


def register(pool: Refusing) -> None:
    """Have errors about this pool explained from now on."""
    if not _pools:
        _explain_numpys()
    _pools[pool._key()] = pool


def explain(error: BaseException, size: int | None = None) -> None:
    """Add to the error what the pool that refused this thread's last request says, if that request was of `size`."""
    refused = _core.take_refusal()
    if refused is None or (size is not None and refused[1] != max(size, 1)):
        return
    pool = _pools.get(refused[0])
    if pool is None:
        return
    text = pool._refusal(*refused[1:])
    if sys.version_info >= (3, 11):
        error.add_note(text)
    else:
        error.__cause__ = MemoryError(text)


@functools.cache
def _explain_numpys() -> None:
    # NumPy makes this exception right after the refusal, on the same thread. Older and newer NumPy keep it in other
    # places; where it is in neither, errors stay as they are until a handler is left.
    for package in ("numpy._core", "numpy.core"):
        raised = getattr(sys.modules.get(f"{package}._exceptions"), "_ArrayMemoryError", None)
        if raised is not None:
            raised.__init__ = _explaining(raised.__init__)
            return


def _explaining(made: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(made)
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        explain(self, getattr(self, "_total_size", None))

    return __init__


_core._set_refusal_explainer(explain)
