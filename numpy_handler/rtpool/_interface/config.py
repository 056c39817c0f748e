"""Where the headers are: `get_include`, and the command ``rtpool-config``."""

import argparse
import sys
from pathlib import Path

from .. import _core

_PACKAGE = Path(__file__).absolute().parent.parent


def get_include() -> str:
    """Give the folder with the headers ``rtpool/rtpool.h`` and ``rtpool/rtpool.hpp``.

    Extensions use them to get memory from pools in C, C++ and Cython; there is nothing to link. The command
    ``rtpool-config --cflags`` prints the same as an option for a compiler, and ``rtpool-config --pkgconfigdir`` the
    folder in which pkg-config and Meson find ``rtpool.pc``.

    Returns
    -------
    str
        For ``-I`` or ``include_dirs``.

    Examples
    --------
    >>> import os, rtpool
    >>> os.path.exists(os.path.join(rtpool.get_include(), "rtpool", "rtpool.h"))
    True
    """
    return str(_PACKAGE / "include")


def get_pkgconfigdir() -> str:
    """Give the folder of ``rtpool.pc``."""
    return str(_PACKAGE / "pkgconfig")


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``rtpool-config``; the exit code is 0, and 2 where nothing or nothing known is asked for."""
    parser = argparse.ArgumentParser(
        prog="rtpool-config", description="What it takes to build an extension that uses rtpool's pools."
    )
    parser.add_argument("--version", action="version", version=_core.__version__, help="the version of rtpool")
    answers = {
        "--cflags": (_quoted(f"-I{get_include()}"), "options for the compiler; there is nothing to link"),
        "--includedir": (get_include(), "the folder with the headers, as rtpool.get_include() gives it"),
        "--pkgconfigdir": (
            get_pkgconfigdir(),
            "the folder of rtpool.pc, for PKG_CONFIG_PATH or Meson's pkg_config_path",
        ),
    }
    for option, (answer, text) in answers.items():
        names = [option, "--includes"] if option == "--cflags" else [option]
        parser.add_argument(*names, dest="wanted", action="append_const", const=answer, help=text)
    wanted = parser.parse_args(arguments).wanted
    if not wanted:
        parser.print_help(sys.stderr)
        return 2
    print(*wanted)
    return 0


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)


if __name__ == "__main__":
    sys.exit(main())
