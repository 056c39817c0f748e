"""A Python whose file has capabilities: the kernel lets no process without them look at it, not even its own user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDINARY = 65534

PROGRAM = """
import multiprocessing, os, sys
import numpy as np
import rtpool

def capable():
    with open("/proc/self/status") as status:
        return any(line.startswith("CapPrm") and int(line.split()[1], 16) for line in status)

def add(handle, answers):
    array = handle.open()
    answers.put((capable(), int(array.sum())))

def again(pool, answers):
    with rtpool.handler(pool):
        mine = np.full(1000, 3)
    answers.put(pool.share(mine))

if __name__ == "__main__":
    assert capable() and os.getuid() != 0
    multiprocessing.set_executable(sys.argv[2])
    context = multiprocessing.get_context(sys.argv[1])
    answers = context.Queue()
    with rtpool.SharedPool.create("8 MiB") as pool:
        with rtpool.handler(pool):
            array = np.arange(1000)
        one = context.Process(target=add, args=(pool.share(array), answers), daemon=True)
        one.start()
        child_is_capable, total = answers.get(timeout=60)
        one.join(60)
        other = context.Process(target=again, args=(pool, answers), daemon=True)
        other.start()
        got = int(answers.get(timeout=60).open().sum())
        other.join(60)
        print(child_is_capable, total, got, one.exitcode, other.exitcode)
"""


@pytest.fixture
def capable_python() -> Iterator[Path]:
    """A copy of this Python with a file capability, beside one without, in a folder that everybody may read."""
    if os.geteuid() != 0:
        pytest.skip("a file gets capabilities from root only")
    folder = Path(tempfile.mkdtemp(prefix="rtpool-capable-"))
    folder.chmod(0o755)
    copy = folder / "capable"
    for each in (copy, folder / "plain"):
        shutil.copy(os.path.realpath(sys.executable), each)
    try:
        subprocess.run(["setcap", "cap_net_raw=ep", copy], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder)
        pytest.skip(f"setcap does not give a capability here: {error}")
    yield copy
    shutil.rmtree(folder)


def readable() -> str:
    """Shell commands, in mounts of one's own, after which an ordinary user reaches this Python.

    Where it lies below a home that is closed to others the way there is replaced by an open one.
    """
    base = Path(sys.base_prefix).resolve()
    closed = [folder for folder in reversed(base.parents) if not folder.stat().st_mode & 0o001]
    if not closed:
        return "true"
    return (
        f"mount --bind {base} /mnt && mount -t tmpfs -o mode=755 none {closed[0]} && mkdir -p {base}"
        f" && mount --bind /mnt {base}"
    )


@pytest.mark.parametrize(
    ("method", "child"),
    [("fork", "capable"), ("spawn", "capable"), ("forkserver", "capable"), ("spawn", "plain"), ("forkserver", "plain")],
)
def test_nameless_pools_travel(capable_python: Path, method: str, child: str) -> None:
    program = capable_python.parent / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    script = (
        f"{readable()} && exec setpriv --reuid={ORDINARY} --regid={ORDINARY} --clear-groups"
        f" {capable_python} {program} {method} {capable_python.parent / child}"
    )
    try:
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "true"], check=True, capture_output=True, timeout=60
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespace of one's own can be had here (unshare --mount)")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
             "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "HOME": str(capable_python.parent)},
        cwd=capable_python.parent, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = [str(child == "capable"), "499500", "3000", "0", "0"]
    assert done.stdout.split() == said, f"{done.stdout}\n{done.stderr}"
