#!/usr/bin/env python3
"""What Meson asks the Python it builds for, answered for the Python below RTPOOL_ARM_ROOT, which cannot run here.

Meson runs a script that asks `sysconfig`, and this project's build file asks NumPy where its headers are. Both are
answered from that system's files, by whatever Python this machine has.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import sysconfig
import types
from pathlib import Path

ROOT = Path(os.environ["RTPOOL_ARM_ROOT"]).resolve()


def variables() -> dict[str, object]:
    """The build variables of that Python, with folders where they are seen from here."""
    (data,) = list(ROOT.glob("usr/lib/python3.*/_sysconfigdata__aarch64-linux-gnu.py"))
    values: dict[str, object] = dict(runpy.run_path(str(data))["build_time_vars"])
    for name in ("INCLUDEPY", "CONFINCLUDEPY"):
        values[name] = str(ROOT / str(values[name]).lstrip("/"))
    version = data.parent.name.removeprefix("python")
    return values | {"py_version_short": version, "base": "/usr", "platbase": "/usr", "LIBPYTHON": ""}


def answer_for_target() -> None:
    values = variables()
    version = str(values["py_version_short"])
    include = str(values["INCLUDEPY"])
    places = {name: f"/usr/local/lib/python{version}/dist-packages" for name in ("purelib", "platlib")}
    places |= {"include": include, "platinclude": include, "data": "/usr/local", "scripts": "/usr/local/bin"}
    places |= {"stdlib": f"/usr/lib/python{version}", "platstdlib": f"/usr/lib/python{version}"}
    sysconfig.get_config_vars = lambda *names: [values.get(name) for name in names] if names else values  # type: ignore
    sysconfig.get_config_var = values.get  # type: ignore
    sysconfig.get_paths = lambda *_, **__: places  # type: ignore
    sysconfig.get_default_scheme = lambda: "posix_prefix"
    sysconfig.get_scheme_names = lambda: ("posix_prefix",)
    sysconfig.get_python_version = lambda: version
    sysconfig.get_platform = lambda: "linux-aarch64"

    numpy = types.ModuleType("numpy")
    (package,) = list(ROOT.glob("usr/lib/python3/dist-packages/numpy-*.dist-info"))
    numpy.__version__ = re.match(r"numpy-(.*)\.dist-info", package.name)[1]  # type: ignore
    numpy.get_include = lambda: str(package.parent / "numpy" / "_core" / "include")  # type: ignore
    sys.modules["numpy"] = numpy


def main() -> None:
    if sys.argv[1:2] == ["--version"]:
        print(f"Python {variables()['py_version_short']}.0")
        return
    answer_for_target()
    if sys.argv[1] == "-c":
        exec(sys.argv[2], {"__name__": "__main__"})
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
