"""One table for the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._support.sizes import format_size

SIZES = ("used", "idle", "given_back", "peak")
COUNTS = ("hits", "misses", "fallbacks")


class Report(dict[str, dict[str, int]]):
    """The figures of each worker by its address; printing it gives a table with the sum below.

    ``used`` and ``idle`` are what the pool has in arrays and free, ``given_back`` what went back to the kernel since
    the worker began, ``peak`` the most in arrays at once, in bytes; ``hits``, ``misses`` and ``fallbacks`` count
    requests.
    """

    def __str__(self) -> str:
        if not self:
            return "no worker has the plugin: client.register_plugin(rtpool.dask.RtpoolPlugin())"
        width = max(len(address) for address in [*self, "together"])
        lines = [f"{'worker':<{width}}" + "".join(f"{name.replace('_', ' '):>14}" for name in SIZES + COUNTS)]
        together = {name: sum(figures.get(name, 0) for figures in self.values()) for name in SIZES + COUNTS}
        for address, figures in [*self.items(), ("together", together)]:
            cells = [format_size(figures.get(name, 0)) for name in SIZES] + [f"{figures.get(n, 0):,}" for n in COUNTS]
            lines.append(f"{address:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
        return "\n".join(lines)


def figures_of(workers: Mapping[str, Any]) -> Report:
    """Those of the workers that have the plugin."""
    return Report({address: told["rtpool"] for address, told in sorted(workers.items()) if told.get("rtpool")})


def report(client: Any) -> Report:
    """Print and return what the workers' pools hold and have done.

    Parameters
    ----------
    client : distributed.Client
        Of a cluster with `RtpoolPlugin`.

    Returns
    -------
    Report
        The figures of each worker, as of now.
    """
    found = figures_of(client.run(_look))
    print(found)
    return found


def _look(dask_worker: Any) -> dict[str, Any]:
    metric = dask_worker.metrics.get("rtpool")
    return {} if metric is None else {"rtpool": metric(dask_worker)}
