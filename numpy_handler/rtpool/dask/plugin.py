"""The worker plugin, and how `--preload rtpool.dask` gets at it."""

from __future__ import annotations

from typing import Any

import dask
from distributed import Scheduler, Worker, WorkerPlugin

from .._handler.activation import activate, active_pool, deactivate
from .._pool.pool import Pool
from .._support.durations import Duration, parse_duration
from .._support.sizes import Size, parse_size
from .keeper import Keeper
from .logs import TextOnly
from .panel import RtpoolPanel
from .transfer import Transfer

METRIC = "rtpool"


class RtpoolPlugin(WorkerPlugin):  # type: ignore[misc]
    """Let the workers of a cluster draw their arrays from pools.

    Each worker is activated with a pool of its own. What the pool has free goes back to the kernel by a thread: at
    once where the process is above `pressure` of its memory limit, below Dask's thresholds, and when it has not been
    used for `idle` in any case. The figures of each worker are in ``worker.metrics["rtpool"]``.

    Parameters
    ----------
    limit : int or str, default "60%"
        The most a worker's pool may hold; a percentage is of the worker's memory limit, of the machine's memory where
        it has none. Beyond, NumPy's allocator serves (counted as fallbacks).
    idle : float, str or timedelta, default "2s"
        After how long memory that is not used goes back.
    pressure : float, default 0.55
        Fraction of the worker's memory limit above which free memory goes back at once.
    shared : int or str, optional
        The size of a pool in shared memory for all workers of one host, see `rtpool.dask.shared_pool`. Arrays in
        it travel between these workers as handles, without a copy, and arrive read-only.

    Notes
    -----
    libc's malloc is left as it is (no ``malloc="tune"``): Dask counts what libc keeps as unmanaged memory. A worker
    that is active already (``RTPOOL_ACTIVATE`` in ``distributed.nanny.pre-spawn-environ``) keeps its pool, and `limit`
    does not change that one's.

    Examples
    --------
    >>> client.register_plugin(rtpool.dask.RtpoolPlugin(limit="50%"))  # doctest: +SKIP
    """

    name = "rtpool"
    idempotent = True

    def __init__(
        self, *, limit: Size = "60%", idle: Duration = "2s", pressure: float = 0.55, shared: Size | None = None
    ) -> None:
        if not 0 < pressure <= 1:
            raise ValueError(f"pressure is a fraction of the worker's memory limit, above 0 up to 1, not {pressure!r}")
        self.limit, self.idle, self.pressure = limit, parse_duration(idle, "idle") / 1e9, pressure
        self.shared = None if shared is None else parse_size(shared, "shared")
        _limit_of(limit, 1 << 30)

    def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker."""
        memory_limit = getattr(getattr(worker, "memory_manager", None), "memory_limit", None) or 0
        self._text_only = TextOnly()
        self._text_only.install()
        pool = active_pool()
        self._activated = pool is None
        if pool is None:
            pool = activate(
                Pool(name="dask", limit=_limit_of(self.limit, memory_limit), when_full="fallback"), malloc="keep"
            )
        self._transfer = None if self.shared is None else Transfer(worker, self.shared)
        further = None if self._transfer is None else self._transfer.look_after
        self._keeper = Keeper(pool, memory_limit=memory_limit, idle=self.idle, pressure=self.pressure, further=further)
        self._keeper.start()
        keeper = self._keeper
        worker.metrics[METRIC] = lambda _: keeper.figures

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker ends or the plugin is taken away."""
        worker.metrics.pop(METRIC, None)
        self._text_only.remove()
        self._keeper.stop()
        if self._transfer is not None:
            self._transfer.close()
        if self._activated:
            deactivate()


def _limit_of(limit: Size, memory_limit: int) -> int:
    """A percentage is of the worker's memory, not of the machine's."""
    if memory_limit and isinstance(limit, str) and limit.strip().endswith("%"):
        return int(memory_limit * float(limit.strip().removesuffix("%")) / 100)
    return parse_size(limit, "limit")


async def dask_setup(server: Any) -> None:
    """Set up a worker or scheduler that was started with ``--preload rtpool.dask``.

    Options come from Dask's configuration: ``rtpool.limit``, ``rtpool.idle``, ``rtpool.pressure``, ``rtpool.shared``
    (in the environment ``DASK_RTPOOL__LIMIT`` and so on).
    """
    if isinstance(server, Scheduler):
        await server.register_scheduler_plugin(plugin=RtpoolPanel(), idempotent=True)
    elif isinstance(server, Worker):
        names = ("limit", "idle", "pressure", "shared")
        asked = {name: dask.config.get(f"rtpool.{name}", None) for name in names}
        plugin = RtpoolPlugin(**{name: value for name, value in asked.items() if value is not None})
        await server.plugin_add(plugin=plugin, catch_errors=False)


async def dask_teardown(server: Any) -> None:
    """Nothing: plugins are taken down by the server itself."""
