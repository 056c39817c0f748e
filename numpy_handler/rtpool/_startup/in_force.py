"""Whether Pythons that start like this one run rtpool's start-up file, and why not."""

from __future__ import annotations

import os
import site
import sys
from typing import NamedTuple


class StartUp(NamedTuple):
    """What RTPOOL_ACTIVATE comes to in processes that inherit it from this one."""

    in_force: bool
    where: str  # the file
    why_not: str
    asked: str  # RTPOOL_ACTIVATE


def start_up() -> StartUp:
    """Look for the start-up file as the `site` module does."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Python 3.15 takes the .start file and passes over the import lines of the .pth file of the same name.
    where = os.path.join(home, "rtpool.start" if sys.version_info >= (3, 15) else "rtpool.pth")
    return StartUp(not (why := _why_not(home, where)), where, why, os.environ.get("RTPOOL_ACTIVATE", ""))


def _why_not(home: str, where: str) -> str:
    if getattr(sys, "frozen", False):
        return "this is a frozen program: it has no site-packages; call rtpool.activate() in it"
    if not sys.executable:
        return "Python is embedded in a program; call rtpool.activate() in it"
    if sys.flags.no_site:
        return "Python was started with -S, which leaves start-up files out"
    if not os.path.exists(where):
        return f"there is no {where}: an editable install, or rtpool's source; install it with pip install ."
    folders = {os.path.realpath(folder) for folder in site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(os.path.realpath(site.getusersitepackages()))
    if os.path.realpath(home) not in folders:
        return (
            f"{home} is no site-packages folder of this Python (pip install --target, PYTHONPATH, or -s, -I and a"
            " user's own): start-up files are read from those alone"
        )
    return ""
