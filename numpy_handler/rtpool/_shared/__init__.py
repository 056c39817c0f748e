"""Pools in shared memory, handles of arrays in them, and arrays that travel by reference."""

from __future__ import annotations

from .._core import SharedArray
from .pool import SharedPool, pool_at
from .reduction import share_by_reference
from .stats import SharedStats

__all__ = ["SharedArray", "SharedPool", "SharedStats", "pool_at", "share_by_reference"]
