"""The line that gives this machine huge pages, where it has none for us."""

from __future__ import annotations

from pathlib import Path

from .. import _core
from .sizes import format_size

_SIZE = 2 << 20


def transparent_state() -> str:
    """Say how this kernel has transparent huge pages of 2 MiB set."""
    state = _core.transparent_huge_pages()
    if state == "unknown":
        return "none of 2 MiB"
    if state == "larger":
        return "larger ones as well, of which no part goes back by itself"
    return state


def transparent_fix(setting: str | None = None, root: str = "/", larger: str | None = None) -> str:
    """Say what to do for transparent huge pages of 2 MiB.

    Parameters
    ----------
    setting : str, optional
        The file that decides about them, empty for none; asked of the core where left out.
    root : str
        Where the machine's files are. Tests have another.
    larger : str, optional
        The file by which larger ones come as well, empty for none; asked of the core where left out.
    """
    if setting is None:
        setting = _core.transparent_huge_setting()
    if larger is None:
        larger = _core.larger_huge_setting()
    if setting:
        line = f"echo madvise > {setting}"
        return f"{line}; echo never > {larger} (as root)" if larger else f"{line} (as root)"
    try:
        only = int((Path(root) / "sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return "none: this kernel is built without transparent huge pages"
    return (
        f"boot Linux 6.8 or newer: this kernel's transparent huge pages are {format_size(only)} each,"
        f" and only newer ones have those of {format_size(_SIZE)} besides"
    )


def explicit_fix(page: int, count: int, root: str = "/") -> str:
    """Say what to do for `count` explicit huge pages of `page` bytes."""
    # vm.nr_hugepages speaks of the default size: 2 MiB on PCs unless booted otherwise, else 32 MiB and more.
    if page == _default_size(root):
        return f"sysctl -w vm.nr_hugepages={count} (as root)"
    folder = f"/sys/kernel/mm/hugepages/hugepages-{page >> 10}kB"
    offered = Path(root) / folder[1:]
    if offered.parent.is_dir() and not offered.is_dir():
        names = sorted((path.name.removeprefix("hugepages-") for path in offered.parent.iterdir()), key=len)
        return f"none: this kernel offers explicit huge pages of {', '.join(names) or 'no size'} only (nr_hugepages)"
    line = f"echo {count} > {folder}/nr_hugepages (as root"
    return line + (f"; or boot with hugepagesz=1G hugepages={count})" if page == 1 << 30 else ")")


def _default_size(root: str) -> int:
    try:
        for line in (Path(root) / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("Hugepagesize:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return _SIZE
