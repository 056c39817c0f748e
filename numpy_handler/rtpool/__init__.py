"""The memory pool behind NumPy.

``with rtpool.handler(): loop()`` gives unchanged NumPy code the speed of hand-written ``out=`` code: arrays get memory
that was made ready before. Importing rtpool changes nothing in NumPy.

Sizes are whole bytes, or text: ``"64 KiB"``, ``"256MiB"``, ``"1.5 GiB"`` (binary units; ``"64K"``, ``"256M"`` mean the
same, as in ``ulimit``), ``"10 MB"`` (decimal units), ``"25%"`` (of physical memory).
"""

from __future__ import annotations

from ._activation import activate, active_pool, deactivate
from ._copy import concatenate, copyto, empty_aligned, stack
from ._core import __version__
from ._default import default_pool
from ._effective import Degradation, Effective
from ._errors import CorruptionError
from ._handler import get_handler, handler, owner, set_handler
from ._pool import Pool
from ._stats import Stats

__all__ = [
    "CorruptionError",
    "Degradation",
    "Effective",
    "Pool",
    "Stats",
    "__version__",
    "activate",
    "active_pool",
    "concatenate",
    "copyto",
    "deactivate",
    "default_pool",
    "empty_aligned",
    "get_handler",
    "handler",
    "owner",
    "set_handler",
    "stack",
]
