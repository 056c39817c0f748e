"""Arrays of a pool in shared memory that travel between the workers of one host as handles.

A worker answers a request for data by a message to whoever asked. Where that is a worker on the same host that has the
same pool, arrays of the pool go as handles; to everybody else, and to disk, as plain bytes. Who is on the host is
known from the pool's own folder: each worker leaves its address there.
"""

from __future__ import annotations

import contextlib
import contextvars
import glob
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
from distributed.protocol.numpy import deserialize_numpy_ndarray, serialize_numpy_ndarray
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from .._handler.handler import handler
from .._shared import SharedPool

PATIENCE = 60.0  # seconds after which a handle that nobody took is given up: its receiver was killed
LEAST = 64 << 10  # bytes below which a copy is as quick
HEADER = "rtpool-handle"

_asking: contextvars.ContextVar[str | None] = contextvars.ContextVar("rtpool_asking", default=None)
_here: list[Transfer] = []


def shared_pool() -> SharedPool:
    """Give the shared pool of this worker's host, made by ``RtpoolPlugin(shared=...)``.

    Examples
    --------
    >>> def load(path):  # a task
    ...     with rtpool.handler(rtpool.dask.shared_pool()):
    ...         return np.load(path)

    Raises
    ------
    RuntimeError
        This process is no worker with such a plugin.
    """
    if not _here:
        raise RuntimeError("there is no shared pool here: register RtpoolPlugin(shared='1 GiB'), call this in a task")
    return _here[-1].pool


class Transfer:
    """A worker's part in it."""

    def __init__(self, worker: Any, size: int) -> None:
        cluster = f"{os.getuid()}.{worker.scheduler.address}"
        self._cluster = hashlib.sha256(cluster.encode()).hexdigest()[:16]
        self.pool = _open(f"dask.{self._cluster}", size)
        with contextlib.suppress(OSError):
            _sweep()
        self._folder = f"/dev/shm/rtpool-dask.{self._cluster}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        self._address = worker.address
        with open(self._file(worker.address), "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        self._worker = worker
        self._answer = worker.handlers["get_data"]
        worker.handlers["get_data"] = _telling_who(self._answer)
        _here.append(self)
        _register()
        self._warm_up()

    def _warm_up(self) -> None:
        """Have a handle go to this very process: the first one that comes finds memory mapped and code imported."""
        with handler(self.pool):
            array = np.empty(LEAST, np.uint8)
        with contextlib.suppress(ValueError, MemoryError, LookupError):  # the pool is full
            pickle.loads(bytes(ForkingPickler.dumps(self.pool.share(array)))).open(writeable=False)

    def _file(self, address: str) -> str:
        return f"{self._folder}/{hashlib.sha256(address.encode()).hexdigest()[:24]}"

    def reaches(self, address: str) -> bool:
        """Whether a worker has its part in the pool on this host."""
        return os.path.exists(self._file(address))

    def look_after(self) -> None:
        """Take back what was sent to workers that were killed before they had it."""
        self.pool.reclaim(PATIENCE)

    def _is_the_last(self) -> bool:
        # Workers that were killed have left their addresses.
        return not any(_runs(file) for file in glob.glob(f"{self._folder}/*"))

    def close(self) -> None:
        """Leave it to the others; the last one takes the name away."""
        _here.remove(self)
        self._worker.handlers["get_data"] = self._answer
        with contextlib.suppress(OSError):
            os.unlink(self._file(self._address))
        if self._is_the_last():
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.pool.unlink()
        self.pool.close()


def _runs(file: str) -> bool:
    """Whether the worker that left its address there still runs."""
    try:
        with open(file, encoding="ascii") as opened:
            return os.path.exists(f"/proc/{int(opened.read())}")
    except (OSError, ValueError):
        return False


def _sweep() -> None:
    """Remove the folders of clusters whose pools are gone: all of their workers were killed."""
    for folder in glob.glob("/dev/shm/rtpool-dask.*"):
        pool = folder.replace("/rtpool-dask.", "/rtpool.dask.")
        if not os.path.exists(pool) and os.stat(folder).st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _open(name: str, size: int) -> SharedPool:
    # Not made resident: Dask would count all of it as every worker's.
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            return SharedPool.attach(name, prefault=False, when_full="fallback")
        with contextlib.suppress(FileExistsError):
            return SharedPool.create(size, name=name, prefault=False, when_full="fallback")
    raise FileNotFoundError(f"the shared pool {name!r} comes and goes: workers are ended as fast as they begin")


def _telling_who(answer: Callable[..., Any]) -> Callable[..., Any]:
    async def get_data(comm: Any, keys: Any, who: str | None = None, **further: Any) -> Any:
        token = _asking.set(who)
        try:
            return await answer(comm, keys=keys, who=who, **further)
        finally:
            _asking.reset(token)

    return get_data


def _register() -> None:
    dask_serialize.register(np.ndarray)(_serialize)
    dask_deserialize.register(np.ndarray)(_deserialize)


def _serialize(array: np.ndarray[Any, Any], context: Any = None) -> tuple[dict[str, Any], list[Any]]:
    asking = _asking.get()
    if context is not None and asking is not None and _here and array.nbytes >= LEAST:
        transfer = _here[-1]
        if array in transfer.pool and not array.dtype.hasobject and transfer.reaches(asking):
            with contextlib.suppress(ValueError, TypeError, MemoryError, LookupError):
                return {HEADER: True}, [bytes(ForkingPickler.dumps(transfer.pool.share(array)))]
    header, frames = serialize_numpy_ndarray(array)
    return header, frames


def _deserialize(header: dict[str, Any], frames: list[Any]) -> Any:
    if header.get(HEADER):
        try:
            # Read-only: another worker has the same bytes as its own result.
            return pickle.loads(frames[0]).open(writeable=False)
        except LookupError as error:
            # The worker slept for longer than the handle was kept. Dask takes this for a transfer that was cut short
            # and asks again; of any other error it would make that of the task.
            raise EOFError(str(error)) from error
    return deserialize_numpy_ndarray(header, frames)
