"""rtpool in Dask: a worker plugin, a preload module, a report and a page of the dashboard.

Workers are activated, give idle memory back before Dask's thresholds act on it, and report by ``worker.metrics``::

    client.register_plugin(rtpool.dask.RtpoolPlugin())
    ...
    rtpool.dask.report(client)

or from the command line, for workers and schedulers alike: ``dask worker --preload rtpool.dask ...``.

Needs ``pip install rtpool[dask]``.
"""

from .panel import RtpoolPanel
from .plugin import RtpoolPlugin, dask_setup, dask_teardown
from .report import Report, report
from .transfer import shared_pool

__all__ = ["Report", "RtpoolPanel", "RtpoolPlugin", "dask_setup", "dask_teardown", "report", "shared_pool"]
