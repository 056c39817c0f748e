"""Build the wheel of the Python that runs this, for one target: a step of release.py.

    python tests/wheel/build_one.py --target manylinux_2_28_aarch64 --zig PROGRAM --source FOLDER --work FOLDER \
        --out FOLDER

Runs in an environment with meson-python, meson, ninja, numpy and build.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from targets import TARGETS, Target

# What of pyconfig.h modules are built by: the same on every 64-bit Linux.
EXPECTED = {
    "SIZEOF_INT": 4,
    "SIZEOF_LONG": 8,
    "SIZEOF_LONG_LONG": 8,
    "SIZEOF_VOID_P": 8,
    "SIZEOF_SIZE_T": 8,
    "SIZEOF_WCHAR_T": 4,
    "SIZEOF_TIME_T": 8,
    "SIZEOF_PID_T": 4,
    "SIZEOF_DOUBLE": 8,
    "WORDS_BIGENDIAN": 0,
    "Py_DEBUG": 0,
    "Py_TRACE_REFS": 0,
    "WITH_PYMALLOC": 1,
}


def check_headers() -> None:
    values = {name: sysconfig.get_config_var(name) or 0 for name in EXPECTED}
    different = {name: value for name, value in values.items() if value != EXPECTED[name]}
    if different:
        raise SystemExit(f"the headers of {sys.executable} are not those of other systems: {different}")


def headers_elsewhere(target: Target, work: Path) -> list[Path]:
    """Where Debian's Python is to find its pyconfig.h: that beside the other headers includes one of the architecture
    by a path that only compilers of that system know."""
    include = Path(sysconfig.get_path("include"))
    own = include.parent / (sysconfig.get_config_var("MULTIARCH") or "") / include.name / "pyconfig.h"
    if not own.exists() or own.parent == include:
        return []
    folder = work / "headers"
    place = folder / f"{target.architecture}-linux-gnu" / include.name
    place.mkdir(parents=True)
    shutil.copy(own, place)
    return [folder]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--zig", type=Path, required=True, help="the compiler")
    parser.add_argument("--source", type=Path, required=True, help="the unpacked source archive")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for name in ("source", "work", "out"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    check_headers()
    target = TARGETS[arguments.target]
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    include = headers_elsewhere(target, arguments.work)
    cross = target.write_cross_file(arguments.work / f"{target.tag}.ini", arguments.zig, include)
    suffix = target.suffix((sys.version_info.major, sys.version_info.minor), threads)
    environment = os.environ | {"RTPOOL_SUFFIX": suffix, "_PYTHON_HOST_PLATFORM": f"linux-{target.architecture}"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    # Shared by all Pythons: zig's libraries for the target, and by ccache the core (targets.py).
    environment["ZIG_GLOBAL_CACHE_DIR"] = environment["ZIG_LOCAL_CACHE_DIR"] = str(arguments.work.parent / "zig-cache")
    version = subprocess.run([arguments.zig, "version"], capture_output=True, text=True, check=True).stdout.strip()
    environment |= {"CCACHE_COMPILERTYPE": "clang", "CCACHE_COMPILERCHECK": f"string:zig {version}"}
    environment["CCACHE_DIR"] = str(arguments.work.parent / "ccache")
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        environment.pop(name, None)
    line = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(arguments.out)]
    line += [f"-Csetup-args=--cross-file={cross}", f"-Cbuild-dir={arguments.work / target.tag}"]
    line += ["-Csetup-args=-Dbuildtype=release", str(arguments.source)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    made = re.search(r"Successfully built (\S+\.whl)", re.sub(r"\x1b\[[\d;]*m", "", done.stdout))
    print(arguments.out / made.group(1) if made else done.stdout)


if __name__ == "__main__":
    main()
