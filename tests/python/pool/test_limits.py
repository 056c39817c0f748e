"""Where memory is limited: the documented outcome, and the process lives.

The table in docs/reference/limits.md ("Where memory is limited") says what these tests hold, with those of
test_permissions.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_limits import WORK, run

LIMIT = 256 << 20
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A memory cgroup of 256 MiB that processes can be put into."""
    yield from cgroup_of(LIMIT)


@pytest.fixture
def cgroup_of_1_gib() -> Iterator[Path]:
    yield from cgroup_of(1 << 30)


@pytest.fixture
def cgroup_of_48_mib() -> Iterator[Path]:
    yield from cgroup_of(48 << 20)


@pytest.fixture
def machine_with_memory() -> None:
    """One of which half can be had, without a limit of ours that is nearly reached."""
    meminfo = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    if meminfo["MemAvailable"] < meminfo["MemTotal"] * 0.6:
        pytest.skip("this machine is short of memory itself")
    group = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "/")
    for mount in (V2, V2 / "unified"):
        pressure = mount / group.strip("/") / "memory.pressure"
        if group != "/" and pressure.exists() and some_avg10(pressure) >= 0.5:
            pytest.skip("this test's own cgroup is short of memory")


def some_avg10(pressure: Path) -> float:
    """Of the last ten seconds, the part in percent in which some task waited for memory."""
    return float(pressure.read_text().split("avg10=")[1].split()[0])


def stalls_within(seconds: float) -> bool:
    machine = Path("/proc/pressure/memory")
    end = time.monotonic() + seconds
    while machine.exists() and time.monotonic() < end:
        if some_avg10(machine) >= 1.5:
            return True
        time.sleep(0.2)
    return False


def cgroup_of(limit: int) -> Iterator[Path]:
    name = f"rtpool-test-{uuid.uuid4().hex[:12]}"
    for parent, files in ((V1, ("memory.limit_in_bytes",)), (V2, ("memory.max",))):
        if not (parent / files[0]).exists() and not (parent / "cgroup.controllers").exists():
            continue
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / files[0]).write_text(str(limit))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here (needs root and a writable /sys/fs/cgroup)")


def file_system(path: Path) -> str:
    """The kind of that which the path lies in."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return max((len(place), kind) for place, kind in mounts if path.is_relative_to(place))[1]


def run_in(group: Path, code: str, **environment: str) -> str:
    enter = f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(__import__('os').getpid()))\n"
    return run(enter + WORK + textwrap.dedent(code), **environment)


def test_a_cgroup_is_the_physical_memory(memory_cgroup: Path) -> None:
    run_in(
        memory_cgroup,
        f"""
        assert rtpool._core.physical_memory() == {LIMIT}, rtpool._core.physical_memory()
        assert rtpool.Pool().effective.limit == {LIMIT}
        assert rtpool.default_pool().effective.limit == {LIMIT}
        assert rtpool.Pool(limit="25%").effective.limit == {LIMIT // 4}
        try:
            rtpool.Pool("300 MiB")
        except MemoryError as error:
            assert "256 MiB" in str(error), error
        else:
            raise SystemExit("made")
        """,
    )


def test_the_default_pool_in_a_cgroup_leaves_room_and_lives(memory_cgroup: Path) -> None:
    """Activated, a program holds as much as without; the pool stays out of the last quarter."""
    run_in(
        memory_cgroup,
        """
        pool = rtpool.activate()
        kept = fill(200)
        stats = pool.stats()
        assert len(kept) == 200 and stats.fallbacks > 0, stats
        assert stats.capacity_bytes <= 192 * MIB, stats
        verify(kept)
        del kept
        verify(fill(100))
        pool.check()
        """,
    )


def test_a_pool_without_restraint_refuses_before_the_cgroup_kills(memory_cgroup: Path) -> None:
    run_in(
        memory_cgroup,
        """
        pool = rtpool.Pool(limit="1 GiB")
        with rtpool.handler(pool):
            kept = fill(64)
            try:
                np.empty(300 * MIB, np.uint8)
            except MemoryError:
                pass
            else:
                raise SystemExit("300 MiB in 256")
            verify(kept)
        assert pool.stats().failures == 1, pool.stats()
        pool.check()
        """,
    )


def test_file_pages_of_a_cgroup_do_not_count(memory_cgroup: Path, tmp_path: Path) -> None:
    if file_system(tmp_path) in ("tmpfs", "ramfs", "rootfs"):
        pytest.skip("temporary files are memory here: there is no disk to which their pages could go back")
    run_in(
        memory_cgroup,
        f"""
        path = {str(tmp_path / "file")!r}
        with open(path, "wb") as file:
            for _ in range(200):
                file.write(bytes(MIB))
            file.flush(); os.fsync(file.fileno())
        open(path, "rb").read(1)
        with open(path, "rb") as file:
            while file.read(MIB):
                pass
        pool = rtpool.activate()
        kept = fill(80)
        assert pool.stats().fallbacks == 0, pool.stats()
        verify(kept)
        """,
    )


def test_two_activated_processes_share_a_cgroup(memory_cgroup: Path) -> None:
    run_in(
        memory_cgroup,
        """
        import sys, subprocess
        rtpool.activate()
        code = (
            "import numpy as np, rtpool; rtpool.activate(); k = [np.zeros(1 << 20, np.uint8) for _ in range(300)];"
            "assert not any(a.any() for a in k[:20]); print('+', flush=True); input()"
        )
        children = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) for _ in range(2)]
        said = [child.stdout.readline().strip() for child in children]
        ends = [child.communicate("\\n") and child.returncode for child in children]
        assert said == ["+", "+"] and ends == [0, 0], (said, ends)
        """,
    )


# Programs that know nothing of rtpool, and live in 1 GiB without it.
WAVES = """
for _ in range(3):
    for count, size in ((40, 16), (210, 3), (1, 600)):
        wave = [np.full(size * MIB, i & 255, np.uint8) for i in range(count)]
        verify(wave)
        del wave
"""
NO_SIZE_TWICE = """
import random
rng = random.Random(5)
kept, held = [], 0
for i in range(3000):
    size = rng.randrange(4096, 8 * MIB)
    while held + size > 850 * MIB:
        at = rng.randrange(len(kept))
        kept[at], kept[-1] = kept[-1], kept[at]
        array, mark = kept.pop()
        assert array[0] == array[-1] == mark, "lost"
        held -= array.size
    kept.append((np.full(size, i & 255, np.uint8), i & 255))
    held += size
    del size
assert all(array[0] == array[-1] == mark for array, mark in kept), "lost"
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [WAVES, NO_SIZE_TWICE], ids=["waves", "no size twice"])
def test_a_program_lives_where_it_lives_without(cgroup_of_1_gib: Path, program: str) -> None:
    # What the kernel kills ends with -9.
    try:
        said = run_in(cgroup_of_1_gib, f"rtpool.activate(malloc='tune', objects='pool')\n{program}print('lives')")
    except AssertionError:
        run_in(cgroup_of_1_gib, program)  # fails where the limit is too small for the program itself
        raise
    assert said.strip() == "lives"


@pytest.mark.slow
def test_pressure_hastens_what_is_idle(cgroup_of_1_gib: Path) -> None:
    """A cgroup that is nearly full: what nobody uses goes back long before its time."""
    run_in(
        cgroup_of_1_gib,
        """
        import time
        pool = rtpool.Pool(limit="700 MiB", idle="1 h")
        with rtpool.handler(pool):
            wave = fill(600)
        del wave
        assert pool.stats().capacity_bytes >= 600 * MIB
        other = np.full(350 * MIB, 1, np.uint8)  # not the pool's
        end = time.monotonic() + 60
        while pool.stats().capacity_bytes > 8 * MIB and time.monotonic() < end:
            time.sleep(0.05)
        assert pool.stats().capacity_bytes <= 8 * MIB, pool.stats()
        assert other[-1] == 1
        """,
    )


KEEPS = """
import time
pool = rtpool.Pool(idle="1 h")
with rtpool.handler(pool):
    wave = fill(100)
del wave
time.sleep({looks})
assert pool.stats().capacity_bytes >= 100 * MIB, pool.stats()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("machine_with_memory")
def test_idle_memory_waits_its_time_without_pressure() -> None:
    run(WORK + KEEPS.format(looks=6))  # two looks and more


@pytest.mark.slow
@pytest.mark.usefixtures("machine_with_memory")
def test_a_neighbour_at_its_limit_is_no_pressure(cgroup_of_48_mib: Path, tmp_path: Path) -> None:
    """A container that thrashes in its own limit makes the machine stall; nothing that we give back would help it."""
    if file_system(tmp_path) in ("tmpfs", "ramfs", "rootfs"):
        pytest.skip("temporary files are memory here: a process that reads them over and over does not wait for memory")
    path = tmp_path / "file"
    thrash = f"""
open({str(cgroup_of_48_mib / "cgroup.procs")!r}, "w").write(str(__import__("os").getpid()))
with open({str(path)!r}, "wb") as file:
    for _ in range(150):
        file.write(bytes(1 << 20))
print("+", flush=True)
while True:
    with open({str(path)!r}, "rb") as file:
        while file.read(1 << 20):
            pass
"""
    with subprocess.Popen([sys.executable, "-c", thrash], stdout=subprocess.PIPE) as neighbour:
        try:
            assert neighbour.stdout is not None and neighbour.stdout.readline() == b"+\n"
            if not stalls_within(30):
                pytest.skip("the kernel does not tell of the neighbour's stalls")
            run(WORK + KEEPS.format(looks=6))
        finally:
            neighbour.kill()
    path.unlink()


@pytest.mark.usefixtures("without_huge_pages")  # which a touch would bring of the sparse array
def test_large_zeros_are_left_to_numpy_by_the_default_pool() -> None:
    """A sparse array costs what is touched of it, as without rtpool."""
    run(
        WORK
        + """
rtpool.activate()
pool = rtpool.default_pool()
memory = rtpool._core.physical_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sparse = np.zeros(memory // 12, np.uint8)
sparse[:: MIB * 64] = 1
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
assert rtpool.owner(sparse) is None and pool.stats().fallbacks == 1
small = np.zeros(8 * MIB, np.uint8)
assert rtpool.owner(small) == pool
"""
    )


def test_twins_of_the_default_pool_are_as_considerate() -> None:
    run(
        WORK
        + """
with rtpool.handler(per_thread=True) as pool:
    assert pool != rtpool.default_pool()
    assert pool._restraint() == rtpool.default_pool()._restraint() != (0, 0)
"""
    )


def test_an_explicit_pool_has_no_restraint(pool) -> None:
    assert pool._restraint() == (0, 0)


@pytest.mark.parametrize("activate", [False, True])
def test_address_space(activate: bool) -> None:
    """RLIMIT_AS: the reservation is cut down, growth ends at what is left, and MemoryError is what comes of it."""
    run(
        WORK
        + f"""
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * MIB,) * 2)
pool = rtpool.activate() if {activate} else rtpool.Pool()
assert pool.effective.limit < rtpool._core.physical_memory()
assert "address space" in str(pool.effective), pool.effective
with rtpool.handler(pool):
    kept = fill(1000)
    assert 20 < len(kept) < 400, len(kept)
    verify(kept)
    kept = kept[: len(kept) // 2]
    verify(kept)
    assert len(fill(10)) == 10
pool.check()
"""
    )


def test_without_address_space_for_any_pool() -> None:
    run(
        WORK
        + """
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 8 * MIB,) * 2)
for make in (rtpool.default_pool, rtpool.Pool, lambda: rtpool.Pool("64 MiB")):
    try:
        make()
    except MemoryError as error:
        assert str(error)
    else:
        raise SystemExit("made")
assert np.ones(1000).sum() == 1000
"""
    )


def test_strict_overcommit() -> None:
    """vm.overcommit_memory=2: reservations are not accounted, growth is refused where the kernel's account is full."""
    setting = Path("/proc/sys/vm/overcommit_memory")
    amount = Path("/proc/sys/vm/overcommit_kbytes")
    before = setting.read_text(), amount.read_text(), Path("/proc/sys/vm/overcommit_ratio").read_text()
    if os.environ.get("RTPOOL_TEST_OVERCOMMIT") != "1":
        pytest.skip("changes vm.overcommit_memory of the whole machine; RTPOOL_TEST_OVERCOMMIT=1 permits it")
    committed = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "Committed_AS" in line
    )
    try:
        amount.write_text(str(committed + (2 << 20)))  # 2 GiB more than is promised now
        setting.write_text("2")
    except OSError as error:
        pytest.skip(f"vm.overcommit_memory cannot be set: {error}")
    try:
        run(
            WORK
            + """
pool = rtpool.activate()
assert pool.effective.limit == rtpool._core.physical_memory(), pool.effective
kept = fill(200)
verify(kept)
other = rtpool.Pool()
with rtpool.handler(other):
    try:
        np.empty(4 << 30, np.uint8)
    except MemoryError:
        pass
    else:
        raise SystemExit("4 GiB of 2")
    verify(fill(10))
verify(kept)
pool.check(), other.check()
"""
        )
    finally:
        setting.write_text(before[0])
        if int(before[1]):
            amount.write_text(before[1])
        else:
            Path("/proc/sys/vm/overcommit_ratio").write_text(before[2])
