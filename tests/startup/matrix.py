"""Activation by RTPOOL_ACTIVATE over every way to start a process, option of the interpreter, and kind of installation.

    python tests/startup/matrix.py [--record]

{the process itself, fork, spawn, forkserver, subprocess, loky} x {no option, -E, -I, -S} x {virtual environment,
system}. `system` is a copy of this Python's own installation in build/startup, into which rtpool is installed without
an environment. Each cell is a program that starts one child and says whether the child is activated; expected is yes,
but for -S, which leaves start-up files out: there the program must run all the same. `--record` writes
results/startup.json. Exit code 0: every cell is as expected.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "startup"
BUILD = ["meson-python>=0.18", "meson>=1.2", "ninja", "numpy>=2.0"]
WAYS = ("itself", "fork", "spawn", "forkserver", "subprocess", "loky")
FLAGS = ("", "-E", "-I", "-S")

PROGRAM = """
import multiprocessing, os, subprocess, sys

SITE, HOW = sys.argv[1:]
sys.path.append(SITE)  # for -S, which leaves site-packages out

def state():
    sys.path.append(SITE)
    import numpy as np
    import rtpool
    pool = rtpool.active_pool()
    return pool is not None and rtpool.owner(np.ones(5000)) == pool

def tell(answers):
    answers.put(state())

if __name__ == "__main__":
    if HOW == "itself":
        print(state())
    elif HOW == "subprocess":
        flags = [] if sys.flags.isolated else subprocess._args_from_interpreter_flags()
        command = [sys.executable, *flags, __file__, SITE, "itself"]
        print(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    elif HOW == "loky":
        from joblib import Parallel, delayed
        print(*Parallel(n_jobs=2)([delayed(state)()]))
    else:
        context = multiprocessing.get_context(HOW)
        answers = context.Queue()
        process = context.Process(target=tell, args=(answers,))
        process.start()
        print(answers.get(timeout=120))
        process.join()
"""


def system_python() -> Path:
    """A Python without an environment that has rtpool."""
    base = Path(sys.base_prefix)
    prefix = WORK / "system"
    if not prefix.exists():
        ignored = shutil.ignore_patterns("test", "__pycache__", "site-packages", "*.a")
        shutil.copytree(base, prefix, symlinks=True, ignore=ignored)
    python = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (prefix / "lib" / f"python{version}" / "site-packages").mkdir(exist_ok=True)
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([python, "-m", "ensurepip", "--upgrade"], check=True, capture_output=True, env=outside)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([*pip, *BUILD, "joblib"], check=True, env=outside)
    path = f"{prefix / 'bin'}{os.pathsep}{outside['PATH']}"
    subprocess.run(
        [*pip, "--no-build-isolation", "--no-deps", ROOT], check=True, cwd=WORK, env=outside | {"PATH": path}
    )
    return python


def cell(python: Path, how: str, flag: str, program: Path) -> str:
    """What the program says: True, False, or what went wrong."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [str(python), *([flag] if flag else []), str(program), site, how],
        env=inherited | {"RTPOOL_ACTIVATE": "1"} | ({"PYTHONPATH": site} if flag == "-S" else {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr[-500:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    program = WORK / "program.py"
    program.write_text(PROGRAM)
    pythons = {"virtual environment": Path(sys.executable), "system": system_python()}
    cells: dict[str, str] = {}
    bad = []
    for kind, python in pythons.items():
        for flag in FLAGS:
            for how in WAYS:
                name = f"{kind}, {flag or 'no option'}, {how}"
                cells[name] = cell(python, how, flag, program)
                # A subprocess of loky's own is started without -S.
                expected = (
                    {"True", "False"} if flag == "-S" and how == "loky" else {"False" if flag == "-S" else "True"}
                )
                if cells[name] not in expected:
                    bad.append(name)
                print(f"{name:<50}{cells[name]}{'  <-- not as expected' if name in bad else ''}", flush=True)
    result = {
        "command": "python tests/startup/matrix.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "activated": cells,
        "not_as_expected": bad,
    }
    if arguments.record:
        (HERE / "results" / "startup.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cells) - len(bad)} of {len(cells)} cells as expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
