"""The page of the dashboard: what each worker's pool has in arrays and idle."""

from __future__ import annotations

from typing import Any

from distributed import SchedulerPlugin

from .report import SIZES, figures_of

ROUTE = "/rtpool"
PERIOD = 500  # milliseconds


class RtpoolPanel(SchedulerPlugin):  # type: ignore[misc]
    """Add a page to the dashboard, at ``/rtpool``.

    ``client.register_plugin(rtpool.dask.RtpoolPanel())``, or ``dask scheduler --preload rtpool.dask``. Does nothing
    where the scheduler has no dashboard.
    """

    name = "rtpool-panel"
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Called by Dask on the scheduler."""
        if "dashboard" not in scheduler.services:
            return
        try:
            from distributed.dashboard.core import BokehApplication
            from distributed.dashboard.scheduler import template_variables
        except ImportError:
            return  # without bokeh there is no dashboard
        from tornado.ioloop import IOLoop

        application = BokehApplication(
            {ROUTE: document}, scheduler, prefix="", template_variables=template_variables(scheduler)
        )
        scheduler.http_application.add_application(application)
        application.initialize(IOLoop.current())


def rows(scheduler: Any) -> dict[str, list[Any]]:
    """The columns of the table: one row a worker."""
    found = figures_of({address: worker.metrics for address, worker in scheduler.workers.items()})
    columns: dict[str, list[Any]] = {"worker": list(found)}
    for name in SIZES:
        columns[name] = [figures[name] / 2**20 for figures in found.values()]
    columns["fallbacks"] = [figures["fallbacks"] for figures in found.values()]
    return columns


def document(scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    """Fill a page: bars of memory, the figures below."""
    from bokeh.models import ColumnDataSource, DataTable, TableColumn
    from bokeh.plotting import figure

    source = ColumnDataSource(rows(scheduler))
    plot = figure(title="pools, MiB", y_range=source.data["worker"] or [""], height=300, sizing_mode="stretch_width")
    plot.hbar_stack(
        ["used", "idle"], y="worker", height=0.8, color=["#4477aa", "#bbccee"], source=source,
        legend_label=["used", "idle"],
    )  # fmt: skip
    names = ["worker", *SIZES, "fallbacks"]
    table = DataTable(
        source=source, columns=[TableColumn(field=name, title=name.replace("_", " ")) for name in names],
        sizing_mode="stretch_width",
    )  # fmt: skip

    def update() -> None:
        source.data = rows(scheduler)
        plot.y_range.factors = source.data["worker"] or [""]

    doc.title = "Dask: rtpool"
    doc.add_root(plot)
    doc.add_root(table)
    doc.add_periodic_callback(update, PERIOD)
