"""Where what the pool would like is not permitted, or not there: the documented outcome, and the process lives.

The table in docs/reference/limits.md ("Where memory is limited") says what these tests hold, with those of
test_limits.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_limits import WORK, run

from rtpool._pool.effective import STEPS
from rtpool._shared import pool as shared


def unprivileged() -> tuple[str, ...]:
    """What runs a command without CAP_IPC_LOCK, which makes RLIMIT_MEMLOCK bind also for root."""
    if os.geteuid() != 0:
        return ()
    prefix = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("setpriv, which drops the right to lock memory, is not here")
    return prefix


def test_no_locked_memory() -> None:
    run(
        WORK
        + """
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
pool = rtpool.Pool("4 MiB", lock=True)
assert pool.effective.lock is False
text = str(pool.effective)
assert "memlock" in text, text
with rtpool.handler(pool):
    verify(fill(8))
try:
    rtpool.Pool("4 MiB", lock=True, strict=True)
except OSError as error:
    assert "memlock" in str(error), error
else:
    raise SystemExit("locked")
with rtpool.SharedPool.create("4 MiB", lock=True) as shared:
    assert "memlock" in str(shared.effective)
""",
        prefix=unprivileged(),
    )


def test_a_name_needs_dev_shm() -> None:
    """Where it is not there at all, what is missing is not the pool that is to be made."""
    failure = (STEPS.index("commit"), errno.ENOENT, 0, 0)
    error = shared._creation_error(shared._CREATE, failure, "a-name", {"size": 1 << 20, "huge_pages": "auto"})
    assert isinstance(error, FileNotFoundError) and "/dev/shm" in str(error) and "none of that name" not in str(error)


def in_private_mounts() -> tuple[str, ...]:
    prefix = ("unshare", "--mount", "--propagation", "private")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespace of one's own can be had here (unshare --mount)")
    return prefix


def in_such_a_dev_shm(mount: str, code: str, **environment: str) -> None:
    """Run code where /dev/shm is what a command mounts there. Skipped where that cannot be mounted."""
    script = f'{mount} none /dev/shm || exit 77; exec {sys.executable} -X faulthandler -c "$CODE"'
    done = subprocess.run(
        [*in_private_mounts(), "sh", "-c", script],
        env=os.environ | {"CODE": WORK + code} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"cannot be mounted here: {mount}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("mount", "error"),
    [
        # Not taken away: a folder that is removed here is gone for the whole machine.
        ("mount -t tmpfs -o ro,size=4k", errno.EROFS),
        ("mount -t tmpfs -o size=64k", errno.ENOSPC),
    ],
    ids=["read-only", "64 KiB"],
)  # fmt: skip
def test_no_dev_shm(mount: str, error: int) -> None:
    """Nameless shared pools do not need /dev/shm; named ones say that it is not there or full."""
    code = """
import errno
pool = rtpool.SharedPool.create("8 MiB")
with rtpool.handler(pool):
    kept = fill(4)
verify(kept)
assert pool.share(kept[0]).open()[0] == 0
try:
    rtpool.SharedPool.create("8 MiB", name="rtpool-test-no-shm")
except (OSError, MemoryError) as error:
    assert "/dev/shm" in str(error), error
    assert isinstance(error, MemoryError) == (int(os.environ["ERROR"]) == errno.ENOSPC), error
    assert isinstance(error, MemoryError) or error.errno == int(os.environ["ERROR"]), error
    if isinstance(error, MemoryError):
        assert "64 KiB" in str(error) and "--shm-size" in str(error) and "without name=" in str(error), error
else:
    raise SystemExit("made in what is not there")
verify(kept)
"""
    in_such_a_dev_shm(mount, code, ERROR=str(error))


def test_names_where_dev_shm_has_larger_blocks() -> None:
    """Of huge pages here, of the kernel's pages where these are larger: another process opens what it was sent."""
    code = """
import pickle, subprocess, sys
with rtpool.SharedPool.create("4 MiB", name="rtpool-test-blocks") as pool:
    assert os.stat("/dev/shm/rtpool.rtpool-test-blocks").st_blksize > 4096
    opens = [sys.executable, "-c", "import pickle, sys; print(pickle.load(sys.stdin.buffer).name)"]
    said = subprocess.run(opens, input=pickle.dumps(pool), capture_output=True, check=True).stdout.decode()
    assert said == "rtpool-test-blocks\\n", said
    pool.unlink()
"""
    in_such_a_dev_shm("mount -t tmpfs -o huge=always", code)


def test_no_transparent_huge_pages() -> None:
    """prctl(PR_SET_THP_DISABLE), which a process inherits: works in ordinary pages."""
    run(
        WORK
        + """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(41, 1, 0, 0, 0) == 0
pool = rtpool.Pool("32 MiB")
with rtpool.handler(pool):
    kept = fill(40)
verify(kept)
huge = [line for line in open("/proc/self/smaps") if line.startswith("AnonHugePages") and not line.split()[1] == "0"]
assert not huge, huge
pool.check()
"""
    )


def test_no_explicit_huge_pages() -> None:
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if free.exists() and int(free.read_text()) > 0:
        pytest.skip("this machine has explicit huge pages")
    run(
        WORK
        + """
pool = rtpool.Pool("4 MiB", huge_pages="2MiB")
assert pool.effective.huge_pages is False and "huge" in str(pool.effective)
with rtpool.handler(pool):
    verify(fill(8))
try:
    rtpool.Pool("4 MiB", huge_pages="2MiB", strict=True)
except OSError as error:
    assert "huge" in str(error), error
else:
    raise SystemExit("made")
"""
    )
