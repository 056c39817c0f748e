"""This process shows itself: ``RTPOOL_LIVE=1``.

A thread of the core sleeps until somebody asks; nothing else is done, and no allocation knows of it. A forked child
shows itself anew. The page is a memory file without a name, which goes with the process however that ends.
"""

from __future__ import annotations

import os
import warnings

from .. import _core

VARIABLE = "RTPOOL_LIVE"

_registered = False


def asked_for() -> bool:
    """Whether the environment asks for it; `ValueError` for a value that is none."""
    value = os.environ.get(VARIABLE, "").strip().lower()
    if value in ("", "0", "no", "false", "off"):
        return False
    if value in ("1", "yes", "true", "on"):
        return True
    raise ValueError(f"{VARIABLE} must be 1 or 0, not {value!r}")


def start() -> None:
    """Show this process, and the children that it forks. What cannot be is a warning: no program ends for it."""
    global _registered
    try:
        _core._live_start()
    except OSError as error:
        warnings.warn(f"{VARIABLE}: this process is not shown: {error.strerror}", RuntimeWarning, stacklevel=2)
        return
    if not _registered:
        os.register_at_fork(after_in_child=_in_child)
        _registered = True


def start_if_asked() -> None:
    """What importing rtpool does where the variable is set."""
    try:
        asked = asked_for()
    except ValueError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return
    if asked:
        start()


def _in_child() -> None:
    try:
        _core._live_restart_in_child()
    except OSError as error:
        warnings.warn(f"{VARIABLE}: a child is not shown: {error.strerror}", RuntimeWarning, stacklevel=2)
