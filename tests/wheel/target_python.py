"""What Meson asks the Python it builds for, answered by the Python of the same version that runs here.

Modules of a version of CPython for 64-bit Linux are built against the same headers everywhere, with the exception of
pyconfig.h, of which build_one.py says what it may differ in; what they are called differs. RTPOOL_SUFFIX is the end
of their names on the target.
"""

from __future__ import annotations

import os
import runpy
import sys
import sysconfig


def main() -> None:
    if sys.argv[1:2] == ["--version"]:
        print(f"Python {sys.version.split()[0]}")
        return
    suffix = os.environ["RTPOOL_SUFFIX"]
    values = sysconfig.get_config_vars()  # the dictionary that every later answer comes from
    values |= {"EXT_SUFFIX": suffix, "SOABI": suffix.removeprefix(".").removesuffix(".so"), "LIBPYTHON": ""}
    if sys.argv[1] == "-c":
        exec(sys.argv[2], {"__name__": "__main__"})
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
