"""Arrays of shared pools that travel by reference through `multiprocessing` and `concurrent.futures`."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from .. import _core

# Found at once, where looking for a type that is in no table costs multiprocessing three exceptions.
ForkingPickler.register(_core.SharedArray, _core._reduce_handle)


def share_by_reference(on: bool = True) -> None:
    """Let arrays of shared pools travel between processes as handles, without a change at the call sites.

    From then on, what this process sends through `multiprocessing` queues, pipes and pools and through
    `concurrent.futures.ProcessPoolExecutor` carries, for each array whose data are in a `SharedPool`, a few hundred
    bytes; the receiver gets an array over the same memory, writeable if the sent one was. All other arrays travel as
    before, also those of dtypes that hold objects.

    Each process that sends calls it for itself; give it as ``initializer=rtpool.share_by_reference`` to pools whose
    workers send results back.

    Parameters
    ----------
    on : bool, default True
        False goes back to sending copies.

    Notes
    -----
    Sender and receiver look at one memory: what either writes, both see. Plain `pickle` is not changed: bytes that may
    be stored or loaded twice always hold a copy.

    Examples
    --------
    >>> import rtpool
    >>> rtpool.share_by_reference()
    >>> rtpool.share_by_reference(False)
    """
    if on:
        ForkingPickler.register(np.ndarray, _reduce)
    else:
        ForkingPickler._extra_reducers.pop(np.ndarray, None)  # type: ignore[attr-defined]


def _reduce(array: np.ndarray[Any, Any]) -> Any:
    by_reference = _core._reduce_by_reference(array)
    return array.__reduce_ex__(pickle.DEFAULT_PROTOCOL) if by_reference is None else by_reference
