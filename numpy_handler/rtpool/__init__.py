"""The memory pool behind NumPy.

``with rtpool.handler(): loop()`` gives unchanged NumPy code the speed of hand-written ``out=`` code: arrays get memory
that was made ready before. Importing rtpool changes nothing in NumPy.

Sizes are whole bytes, or text: ``"64 KiB"``, ``"256MiB"``, ``"1.5 GiB"`` (binary units; ``"64K"``, ``"256M"`` mean the
same, as in ``ulimit``), ``"10 MB"`` (decimal units), ``"25%"`` (of physical memory).

PYTEST_DONT_REWRITE: pytest finds the package by its plugin, and has no asserts to look into.
"""

from os import environ as _environ
from sys import argv as _argv
from typing import TYPE_CHECKING

if _argv[:2] == ["-m", "run"]:  # `python -m rtpool run`: its program imports NumPy by itself
    from ._startup.become import at_once as _at_once

    _at_once()

from . import _core
from ._core import __version__
from ._handler.activation import activate, active_pool, deactivate
from ._handler.handler import get_handler, handler, owner, set_handler
from ._pool.default import default_pool
from ._pool.pool import Pool
from ._pool.stats import Stats
from ._support.errors import CorruptionError

if TYPE_CHECKING:
    from ._copy.copies import concatenate, copyto, empty_aligned, stack
    from ._interface.config import get_include
    from ._pool.debug import LiveBlock
    from ._pool.effective import Degradation, Effective
    from ._pool.plan import Plan, PlanEntry
    from ._realtime.section import realtime
    from ._shared import SharedArray, SharedPool, SharedStats, share_by_reference
    from ._trace.events import TraceError
    from ._trace.recording import Origin, RecordingReport, origin, record
    from ._trace.trace import Trace

__all__ = [
    "CorruptionError",
    "Degradation",
    "Effective",
    "LiveBlock",
    "Origin",
    "Plan",
    "PlanEntry",
    "Pool",
    "RecordingReport",
    "SharedArray",
    "SharedPool",
    "SharedStats",
    "Stats",
    "Trace",
    "TraceError",
    "__version__",
    "activate",
    "active_pool",
    "concatenate",
    "copyto",
    "deactivate",
    "default_pool",
    "empty_aligned",
    "get_handler",
    "get_include",
    "handler",
    "origin",
    "owner",
    "realtime",
    "record",
    "set_handler",
    "share_by_reference",
    "stack",
]

# Names that are imported when they are first asked for, and where they live: importing rtpool stays cheap. For the same
# reason the modules above do without annotations as text, which NamedTuple would compile one by one.
_LATER = {
    "Degradation": "_pool.effective",
    "Effective": "_pool.effective",
    "LiveBlock": "_pool.debug",
    "Origin": "_trace.recording",
    "Plan": "_pool.plan",
    "PlanEntry": "_pool.plan",
    "RecordingReport": "_trace.recording",
    "SharedArray": "_shared",
    "SharedPool": "_shared",
    "SharedStats": "_shared",
    "Trace": "_trace.trace",
    "TraceError": "_trace.events",
    "concatenate": "_copy.copies",
    "copyto": "_copy.copies",
    "empty_aligned": "_copy.copies",
    "get_include": "_interface.config",
    "origin": "_trace.recording",
    "realtime": "_realtime.section",
    "record": "_trace.recording",
    "share_by_reference": "_shared",
    "stack": "_copy.copies",
}


def _shared_owner(address: int) -> object | None:
    if _core._shared_pool_at(address) is None:
        return None
    from ._shared import pool_at

    return pool_at(address)


_core._add_owner_finder(_shared_owner)

if _environ.get("RTPOOL_LIVE"):
    from ._live.publish import start_if_asked

    start_if_asked()
    del start_if_asked


def __getattr__(name: str) -> object:
    if name == "dask":  # needs Dask, so that it is no name of __all__
        from importlib import import_module

        return import_module(".dask", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: object) -> None:
    """What ``%load_ext rtpool`` calls: gives IPython the magics ``%rtpool`` and ``%%rtpool``."""
    from ._notebook.magics import load

    load(shell)


def unload_ipython_extension(shell: object) -> None:
    """What ``%unload_ext rtpool`` calls."""
    from ._notebook.magics import unload

    unload(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
