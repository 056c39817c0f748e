"""What a section does to the process and the machine, and that all of it is restored exactly."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from c_modules import compile_with, compiler
from libcs import MALLOC, keeps_memory

import rtpool
from rtpool import _core
from rtpool._realtime import machine
from rtpool._realtime.probe import Machine


def state() -> dict[str, object]:
    """Everything a section may change."""
    gc.collect()  # Python 3.12 counts what is immortal among the frozen from the next collection on
    return {
        "enabled": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
        "callbacks": list(gc.callbacks),
        "sigint": signal.getsignal(signal.SIGINT),
        "scheduling": _core.thread_scheduling(),
        "affinity": os.sched_getaffinity(0),
        "locked": locked_kib(),
        "slack": timer_slack(),
        "handler": rtpool.get_handler(np.empty(3)),
        "files": len(os.listdir("/proc/self/fd")),
    }


def locked_kib() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck"))


def timer_slack() -> str:
    with open("/proc/thread-self/timerslack_ns" if os.path.exists("/proc/thread-self/timerslack_ns") else
              f"/proc/{os.getpid()}/timerslack_ns", encoding="ascii") as file:  # fmt: skip
        return file.read()


@pytest.fixture(autouse=True)
def everything_is_restored() -> Iterator[None]:
    before = state()
    yield
    assert state() == before


def everything(**more: object) -> rtpool.realtime:
    """A section that asks for all there is."""
    cpu = min(os.sched_getaffinity(0))
    arguments = {"pool": rtpool.Pool("1 MiB"), "lock_process": True, "priority": 5, "cpu": cpu, "cpu_latency": 0}
    arguments["malloc"] = MALLOC
    return rtpool.realtime(0.002, **(arguments | more))  # type: ignore[arg-type]


def test_all_settings_hold_inside_and_are_restored() -> None:
    with everything(iterations=3, warmup=2) as rt:
        for tick in rt:
            assert rtpool.owner(np.empty(100)) == rt.pool
            if not tick.warmup:
                assert not gc.isenabled() and gc.get_freeze_count() > 0
        refused = {one.setting for one in rt.degradations}
        policy, priority, *_ = _core.thread_scheduling()
        assert ((policy, priority) == ("SCHED_FIFO", 5)) == ("priority" not in refused)
        assert (locked_kib() > 1000) == ("lock_process" not in refused)
        assert len(os.sched_getaffinity(0)) == 1
    environment = rt.report.environment
    assert environment.scheduler == policy and len(environment.affinity) == 1


def test_after_an_exception_as_well() -> None:
    with pytest.raises(ZeroDivisionError), everything(warmup=2) as rt:
        for tick in rt:
            1 / (1 - tick.index)
    with pytest.raises(ZeroDivisionError), everything(warmup=2) as rt:
        for tick in rt:
            1 / (1 + tick.index)  # during warm-up
    assert not rt.pool.frozen and not rt.pool._learning()
    with pytest.raises(GeneratorExit), everything():
        raise GeneratorExit


def test_an_exception_in_the_transition_from_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("rtpool._realtime.section.prepare", refuse)
    with pytest.raises(MemoryError, match="no room"), everything(warmup=2) as rt:
        for _ in rt:
            np.ones(1000)
    assert not rt.pool.frozen


def test_an_exception_while_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("rtpool._realtime.section.Freeze", refuse)
    rt = everything()
    with pytest.raises(OSError, match="no"), rt:
        pass
    monkeypatch.undo()
    with rt:
        pass


def test_nested_sections() -> None:
    with everything() as outer:
        mid = state()
        with everything(gc="disable", priority=None, cpu=None) as inner:
            assert rtpool.owner(np.empty(10)) == inner.pool
        after = state()
        # Locking again and unlocking moves the amount that is locked; frozen objects may die.
        inexact = {"locked", "frozen"}
        assert bool(after["locked"]) == bool(mid["locked"])
        assert {k: after[k] for k in after.keys() - inexact} == {k: mid[k] for k in mid.keys() - inexact}
        assert rtpool.owner(np.empty(10)) == outer.pool


def test_nested_sections_of_one_pool_stay_frozen_until_the_last() -> None:
    pool = rtpool.Pool("1 MiB")
    with rtpool.realtime(pool=pool, gc="keep") as outer:
        outer_array = np.ones(300_000)
        with rtpool.realtime(pool=pool, gc="keep", on_miss="raise") as inner, pytest.raises(MemoryError):
            np.ones(400_000)
        assert pool.frozen
        fallback = np.ones(300_000)
        assert rtpool.owner(fallback) is None and rtpool.owner(outer_array) is None
    assert not pool.frozen
    assert dict(inner.report.deviations) == {3_200_000: 1}
    assert dict(outer.report.deviations) == {2_400_000: 2, 3_200_000: 1}


def test_a_pool_the_program_froze_stays_frozen() -> None:
    pool = rtpool.Pool("1 MiB")
    pool.freeze(on_miss="raise")
    with rtpool.realtime(pool=pool, gc="keep") as rt, pytest.raises(MemoryError):
        np.ones(400_000)
    assert pool.frozen and rt.report.misses == 1
    pool.unfreeze()


REFUSED = """
    import os, errno, resource
    import rtpool, numpy as np
    from rtpool import _core
    # Everything is imported before the rights to read it are given up.
    with rtpool.realtime(0.001, priority=1, pool=rtpool.Pool()) as rt:
        pass
    str(rt.report)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    if os.getuid() == 0:
        import pwd
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
"""


def test_what_is_refused_is_reported_with_the_fix(run_python) -> None:
    done = run_python(
        REFUSED
        + """
    asked = dict(lock_process=True, priority=80, cpu=1023, cpu_latency=0)
    rt = rtpool.realtime(0.001, warmup=2, iterations=5, malloc="keep", **asked)
    with rt:
        for tick in rt:
            np.ones(1000)
    assert rt.report.iterations == 5
    for one in rt.degradations:
        print(one.setting)
    text = str(rt.report)
    for fix in ("- memlock unlimited", "- rtprio 80", "cpu=", "udev"):
        assert fix in text, text
    assert not rt.report.environment.locked
    for name, value in asked.items():
        strict = rtpool.realtime(malloc="keep", strict=True, **{name: value})
        try:
            with strict:
                raise AssertionError(name)
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.ENOMEM, errno.EINVAL, errno.EACCES), error
            assert "fix:" in str(error)
        assert not strict.pool.frozen
    """
    )
    assert done.stdout.split() == ["cpu", "lock_process", "cpu_latency", "priority"]


@pytest.mark.parametrize("setting", machine.SETTINGS)
def test_each_refusal_alone(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        restored = 0

        def apply(self, *_: object) -> tuple[int | None, ...]:
            return tuple(1 if name == setting else 0 for name in machine.SETTINGS)

        def restore(self) -> int:
            Fake.restored += 1
            return 0

    monkeypatch.setattr(_core, "MachineSettings", Fake)
    with everything(iterations=1) as rt:
        for _ in rt:
            pass
    (only,) = rt.degradations
    assert only.setting == setting and only.error == 1 and only.fix and "EPERM" in only.reason
    assert Fake.restored == 1
    assert f"{setting}: " in str(rt.report) and only.fix in str(rt.report)
    with pytest.raises(PermissionError), everything(strict=True):
        pass
    assert Fake.restored == 2


def test_a_libc_that_takes_no_settings_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "tune_malloc", lambda: False)
    with rtpool.realtime(pool=rtpool.Pool()) as rt:
        pass
    assert [one.setting for one in rt.degradations] == ["malloc"]
    with pytest.raises(OSError), rtpool.realtime(pool=rtpool.Pool(), strict=True):
        pass


@keeps_memory
def test_the_first_iteration_finds_room_in_libcs_heap(run_python) -> None:
    """For memory that bypasses every handler: 160 pages, where nothing that was freed before may lie."""
    done = run_python(
        """
        import ctypes
        import rtpool
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        rtpool._core.tune_malloc()
        taken = [libc.malloc(64 << 10) for _ in range(64)]
        libc.memset(taken[0], 0, 1)
        with rtpool.realtime(pool=rtpool.Pool(), iterations=1) as rt:
            for _ in rt:
                for _ in range(10):
                    libc.memset(libc.malloc(64 << 10), 1, 64 << 10)
        print(rt.report.minor_faults)
        """
    )
    assert int(done.stdout) < 40


def test_a_fork_inside_a_section(run_python) -> None:
    run_python(
        """
        import os, warnings
        import numpy as np, rtpool
        warnings.simplefilter("ignore")
        with rtpool.realtime(0.001, warmup=3, iterations=10) as rt:
            for tick in rt:
                np.ones(10_000)
                if tick.index == 2:
                    child = os.fork()
        if child == 0:
            os._exit(0 if rt.report.iterations == 10 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert rt.report.iterations == 10
        """
    )


def test_costs_of_entering(run_python) -> None:
    """Below 50 us for a section with nothing asked for; the bound here is for a busy machine."""
    done = run_python(
        """
        import time, statistics, rtpool
        rt = rtpool.realtime(gc="keep", malloc="keep", pool=rtpool.Pool("1 MiB"))
        times = []
        for _ in range(500):
            begun = time.perf_counter_ns()
            with rt:
                pass
            times.append(time.perf_counter_ns() - begun)
        print(statistics.median(times))
        """
    )
    assert float(done.stdout) < 250_000


def test_importing_the_section_is_left_to_its_first_use(run_python) -> None:
    run_python("import sys, rtpool; assert not [name for name in sys.modules if '_realtime' in name]")
    assert "realtime" in dir(rtpool) and callable(rtpool.realtime) and sys.modules["rtpool._realtime"]


def test_the_machine_is_read_without_trust(tmp_path) -> None:
    nothing = Machine(str(tmp_path))
    assert nothing.text("proc/cpuinfo") is None and nothing.number("x") is None and nothing.chosen("x") is None
    assert nothing.governors() == set() and nothing.deepest_idle_latency() is None and nothing.swap_kib() == 0
    assert nothing.is_virtual() is None and nothing.preemption()
    cpu = tmp_path / "sys/devices/system/cpu/cpu0"
    (cpu / "cpufreq").mkdir(parents=True)
    (cpu / "cpufreq/scaling_governor").write_text("powersave\n")
    for number, latency, disabled in ((0, "0", "0"), (1, "133\n", "0"), (2, "900", "1"), (3, "junk", "0")):
        state_directory = cpu / f"cpuidle/state{number}"
        state_directory.mkdir(parents=True)
        (state_directory / "latency").write_text(latency)
        (state_directory / "disable").write_text(disabled)
    (tmp_path / "sys/kernel").mkdir()
    (tmp_path / "sys/kernel/realtime").write_text("1")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : Fast 9000\nflags\t\t: fpu hypervisor sse\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 5 kB\nSwapTotal:   7 kB\n")
    assert nothing.governors() == {"powersave"} and nothing.deepest_idle_latency() == 133
    assert nothing.preemption() == "PREEMPT_RT" and nothing.is_virtual() is True and nothing.swap_kib() == 7
    assert nothing.processor() == "Fast 9000"


def cores(*parts: int) -> str:
    return "".join(f"processor : {n}\nCPU implementer\t: 0x41\nCPU part\t: {part:#x}\n" for n, part in enumerate(parts))


@pytest.mark.parametrize(
    ("files", "processor", "virtual"),
    [
        ({"proc/cpuinfo": cores(0xD0B, 0xD0B, 0xD0B, 0xD0B), "proc/device-tree/model": "Raspberry Pi 5 Model B\0"},
         "Raspberry Pi 5 Model B (4 x Arm Cortex-A76)", False),
        ({"proc/cpuinfo": cores(0xD05, 0xD05, 0xD0B), "proc/device-tree/model": "RK3588\0"},
         "RK3588 (2 x Arm Cortex-A55 + 1 x Arm Cortex-A76)", False),
        ({"proc/cpuinfo": cores(0xD08), "proc/device-tree/compatible": "linux,dummy-virt\0"},
         "1 x Arm Cortex-A72", True),
        ({"proc/cpuinfo": cores(0xD40), "sys/class/dmi/id/sys_vendor": "Amazon EC2",
          "sys/class/dmi/id/product_name": "c7g.large"}, "1 x Arm Neoverse V1", True),
        ({"proc/cpuinfo": cores(0xD40), "sys/class/dmi/id/sys_vendor": "Amazon EC2",
          "sys/class/dmi/id/product_name": "c7g.metal"}, "1 x Arm Neoverse V1", False),
        ({"proc/cpuinfo": cores(0xFFF)}, "1 x Arm part 0xfff", None),
        ({"proc/cpuinfo": cores(0xD03), "sys/hypervisor/type": "xen"}, "1 x Arm Cortex-A53", True),
    ],
)  # fmt: skip
def test_arm_machines_are_named(tmp_path, files: dict[str, str], processor: str, virtual: bool | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = Machine(str(tmp_path))
    assert machine.processor() == processor and machine.is_virtual() is virtual


def test_locking_all_memory_leaves_with_the_kernel_what_went_back(run_python) -> None:
    """Nor does a loop fault for that, or a pool keep what it would give back."""
    done = run_python(
        """
        import os
        import numpy as np
        import rtpool
        MIB = 1 << 20
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB
        other, mine = rtpool.Pool(), rtpool.Pool()
        for pool in (other, mine):
            with rtpool.handler(pool):
                wave = [np.ones(3 * MIB, np.uint8) for _ in range(150)]
                kept = wave[70]
                del wave
            assert pool.trim() > 400 * MIB
        before = held()
        section = rtpool.realtime("200 Hz", pool=mine, lock_process=True, warmup=5, iterations=25)
        with section as rt:
            locked = not any(one.setting == "lock_process" for one in rt.degradations)
            assert held() - before < 450, held() - before  # libraries, and what mlockall makes resident of all else
            for tick in rt:
                a = np.ones(2 * MIB)
                b = a * 2.0
                del a, b
            with rtpool.handler(other):
                wave = [np.ones(3 * MIB, np.uint8) for _ in range(50)]
                del wave
            assert other.trim() > 140 * MIB
        assert not locked or rt.report.minor_faults == 0, rt.report
        mine.check(), other.check()
        print("locked" if locked else "refused")
        """
    )
    if done.stdout.strip() == "refused":
        pytest.skip("all memory of the process cannot be locked here")


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="free-threaded builds only")
def test_locking_all_memory_makes_objects_resident_and_not_what_python_has_reserved(run_python) -> None:
    """Its allocator reserves 1 GiB; of that a large object is in use from end to end, written or not."""
    done = run_python(
        """
        import os, resource
        import rtpool
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        large = bytearray(80 << 20)
        before = held()
        with rtpool.realtime(pool=rtpool.Pool("1 MiB"), lock_process=True) as rt:
            if rt.degradations:
                print("refused")
                raise SystemExit
            assert 80 <= held() - before < 450, (before, held())
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for at in range(0, len(large), 4096):
                large[at] = 1
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
            assert faults < 200, faults  # of 20,480 pages
        """
    )
    if done.stdout.strip() == "refused":
        pytest.skip("all memory of the process cannot be locked here")


def with_relocated_end_inside_a_page(library: Path) -> None:
    """As of a library that was linked for smaller pages: what the loader closes ends 64 bytes into one."""
    image = bytearray(library.read_bytes())
    (at,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for header in range(at, at + size * count, size):
        if struct.unpack_from("<I", image, header)[0] == 0x6474E552:  # PT_GNU_RELRO
            (address,) = struct.unpack_from("<Q", image, header + 16)
            (length,) = struct.unpack_from("<Q", image, header + 40)
            begin_of_page = -(-(address + length) // mmap.PAGESIZE) * mmap.PAGESIZE
            struct.pack_into("<Q", image, header + 40, begin_of_page + 64 - address)
            library.write_bytes(image)
            return
    raise AssertionError("the linker has closed nothing")


def test_a_page_that_the_loader_closes_in_part_only_is_the_process_s_own(tmp_path: Path) -> None:
    source, library = tmp_path / "patched.c", tmp_path / "patched.so"
    source.write_text(
        "extern char table[];\nchar *const pointer = table;\n"
        f"__attribute__((aligned({mmap.PAGESIZE}))) char table[4 * {mmap.PAGESIZE}] = {{1}};\n"
    )
    done = compile_with(compiler(), "-shared", "-fPIC", "-nostdlib", "-Wl,-z,now,-z,relro", source, "-o", library)
    assert done.returncode == 0, done.stderr
    with_relocated_end_inside_a_page(library)
    loaded = ctypes.CDLL(str(library))
    table = ctypes.addressof(ctypes.c_char.in_dll(loaded, "table"))
    _, error = _core.make_program_resident()
    assert error == 0
    with open("/proc/self/pagemap", "rb") as pages:
        pages.seek(table // mmap.PAGESIZE * 8)
        entries = struct.unpack("<4Q", pages.read(32))
    present, of_the_file = 1 << 63, 1 << 61
    assert [entry & (present | of_the_file) for entry in entries] == [present] * 4
