"""Memory that breathes: what has not been used for a while goes back, what fits is had."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from libcs import MALLOC, keeps_memory

import rtpool
from rtpool import Pool

MIB = 1 << 20


def comes_true(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_idle_memory_goes_back_by_itself() -> None:
    pool = Pool(idle="100 ms")
    with rtpool.handler(pool):
        kept = np.full(1000, 7)
        wave = [np.ones(3 * MIB, np.uint8) for _ in range(40)]
        del wave
    assert comes_true(lambda: pool.stats().capacity_bytes <= 6 * MIB), pool.stats()
    assert pool.stats().returned_bytes >= 110 * MIB
    assert (kept == 7).all()
    pool.check()


def test_a_pool_one_makes_keeps_what_it_has() -> None:
    pool = Pool()
    assert pool.effective.asked["idle"] is None
    assert Pool(idle=2).effective.asked["idle"] == 2.0


@pytest.mark.parametrize("idle", [-1, "soon", float("nan"), 0])
def test_an_idle_time_is_a_span_of_time(idle: object) -> None:
    with pytest.raises(ValueError, match="idle"):
        Pool(idle=idle)  # type: ignore[arg-type]


def test_trim_with_an_age_leaves_what_is_young() -> None:
    pool = Pool()
    with rtpool.handler(pool):
        np.ones(32 * MIB, np.uint8)
    assert pool.trim(older_than="1 h") == 0
    time.sleep(0.05)
    assert pool.trim(older_than=0.04) >= 30 * MIB
    assert pool.stats().returned_bytes >= 30 * MIB


def test_what_fits_is_had_after_a_trim() -> None:
    pool = Pool(limit="64 MiB", when_full="raise")
    with rtpool.handler(pool):
        np.empty(10 * MIB, np.uint8)
        pool.trim()
        np.empty(62 * MIB, np.uint8)
        for size in range(10, 63, 4):
            np.empty(size * MIB, np.uint8)
            pool.trim()
        with pytest.raises(MemoryError):
            np.empty(65 * MIB, np.uint8)


def test_a_parent_that_only_waits_for_its_child_gives_back(run_python) -> None:
    """And so does a child that only waits; nobody warns of threads."""
    done = run_python(
        """
        import os, sys, time, warnings
        warnings.simplefilter("error")
        import numpy as np
        import rtpool
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        def comes_back():
            end = time.monotonic() + 60
            while held() > before + 16 and time.monotonic() < end:
                time.sleep(0.05)
            return held() <= before + 16
        pool = rtpool.Pool(idle="300 ms")
        with rtpool.handler(pool):
            np.ones(8)
        before = held()
        with rtpool.handler(pool):
            wave = [np.ones(3 << 20, np.uint8) for _ in range(40)]
        del wave
        pid = os.fork()
        if pid == 0:
            os._exit(0 if comes_back() else 1)
        assert comes_back(), held()
        print(os.waitpid(pid, 0)[1])
        """
    )
    assert done.stdout.strip() == "0"


@pytest.mark.slow
def test_an_activated_program_gives_back_and_rests(run_python) -> None:
    """At rest nothing runs: the process has not been woken between two looks at its switches."""
    done = run_python(
        """
        import os, time
        import rtpool
        rtpool.activate(malloc="tune")
        import numpy as np
        kept = [np.ones(3 << 20, np.uint8) for _ in range(30)]
        del kept
        pool = rtpool.active_pool()
        def switches():
            count = 0
            for task in os.listdir("/proc/self/task"):
                if int(task) == os.getpid():
                    continue
                with open(f"/proc/self/task/{task}/status") as status:
                    count += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
            return count
        end = time.monotonic() + 60
        while pool.stats().capacity_bytes > 8 << 20 and time.monotonic() < end:
            time.sleep(0.05)
        assert pool.stats().capacity_bytes <= 8 << 20, pool.stats()
        before, now = -1, switches()
        while before != now and time.monotonic() < end:
            before = now
            time.sleep(3)  # longer than between two looks
            now = switches()
        print("rests" if before == now else "runs")
        """,
        RTPOOL_IDLE="200 ms",
    )
    assert done.stdout.strip() == "rests"


@pytest.mark.slow
@keeps_memory
def test_libcs_heap_goes_back_where_the_pool_is_small(run_python) -> None:
    """What a program keeps in libc's heap goes back although its arrays are few, each time it has been at work."""
    run_python(
        """
        import os, time
        import rtpool
        pool = rtpool.activate(malloc="tune", objects="keep")
        import numpy as np
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        np.ones(100)
        before = held()
        kept = []
        for _ in range(2):
            blocks = [bytes(100_000) for _ in range(1000)]
            kept.append(bytes(200_000))  # above them
            np.ones(100)
            del blocks
            assert held() > before + 80, held() - before
            end = time.monotonic() + 60
            while held() > before + 16 and time.monotonic() < end:
                time.sleep(0.05)
            assert held() <= before + 16, held() - before
            time.sleep(1)  # at rest
        assert pool.stats().capacity_bytes < 4 << 20, pool.stats()
        """,
        RTPOOL_IDLE="300 ms",
    )


def test_each_threads_own_pool_gives_back_while_its_thread_waits() -> None:
    pools: list[Pool] = []
    over = threading.Event()
    made = threading.Barrier(5)
    scope = rtpool.handler(Pool(idle="100 ms"), per_thread=True)

    def work() -> None:
        with scope as mine:
            wave = [np.ones(3 * MIB, np.uint8) for _ in range(10)]
            pools.append(mine)
            del wave
            made.wait()
            over.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    made.wait()
    try:
        assert comes_true(lambda: all(pool.stats().capacity_bytes <= 6 * MIB for pool in pools))
        assert len({pool.name for pool in pools}) == 4
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_loop_beside_it_does_not_fault(run_python) -> None:
    """While other memory goes back, and long after its idle time, what a loop uses stays resident."""
    run_python(
        """
        import resource, time
        import numpy as np
        import rtpool
        pool = rtpool.Pool(idle="1 s")
        def faults():
            return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        def work():
            a = np.ones(1 << 20)
            b = a * 3.0
            return (b - a).sum()
        with rtpool.handler(pool):
            wave = [np.ones(3 << 20, np.uint8) for _ in range(60)]
            del wave
            for _ in range(20):
                work()
            before, misses = faults(), pool.stats().misses
            end = time.monotonic() + 60
            while pool.stats().capacity_bytes > 48 << 20 and time.monotonic() < end:
                for _ in range(20):
                    work()
            assert pool.stats().capacity_bytes <= 48 << 20, pool.stats()
            # Of the thread: stats() and Python take some small pages of their own.
            assert faults() - before < 20, faults() - before
            assert pool.stats().misses == misses
        """
    )


@pytest.mark.slow
@keeps_memory
@pytest.mark.usefixtures("without_huge_pages")  # of libc's heap
def test_in_a_section_nothing_goes_back(run_python) -> None:
    """Nor does libc's heap, which an activated program has trimmed when it is quiet."""
    run_python(
        """
        import os, time
        import numpy as np
        import rtpool
        rtpool.activate(malloc="tune")
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        def comes_back(to):
            end = time.monotonic() + 60
            while held() > to and time.monotonic() < end:
                time.sleep(0.05)
            return held() <= to
        def work():
            wave = [np.ones(3 << 20, np.uint8) for _ in range(30)]
            blocks = [bytes(100_000) for _ in range(1000)]  # libc's, between those that stay
            kept.append(bytes(200_000))
            del wave, blocks
        kept = []
        rtpool.default_pool()
        np.ones(8)
        before = held()
        work()
        assert held() > before + 170, held() - before
        with rtpool.realtime(pool=rtpool.default_pool()) as rt:
            full = held()
            time.sleep(3)  # six of its looks
            assert held() >= full - 2, (full, held())
        assert rt.report.kernel_calls == 0
        assert comes_back(before + 20), held() - before
        # A section of a pool that nobody looks at holds up libc's heap, and no longer than it lasts.
        work()
        with rtpool.realtime(pool=rtpool.Pool("8 MiB")):
            time.sleep(3)
            assert held() >= before + 80, held() - before
        assert comes_back(before + 20), held() - before
        """,
        RTPOOL_IDLE="500 ms",
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 15)"])
def test_a_program_may_end_while_memory_goes_back(run_python, end: str) -> None:
    """Whatever the thread that gives back is doing: the same exit code, at once, and not a word."""
    code = f"""
        import os, sys, threading, time
        import numpy as np
        import rtpool
        rtpool.activate(malloc="{MALLOC}", objects="pool")
        kept = [np.ones(1000) for _ in range(100)]
        def busy():
            while True:
                wave = [np.ones(3 << 20, np.uint8) for _ in range(8)]
                del wave
                time.sleep(0.03)
        for _ in range(2):
            threading.Thread(target=busy, daemon=True).start()
        time.sleep(0.3)
        {end}
        """
    status = -15 if "kill" in end else 3
    done = run_python(code, status=status, timeout=60, RTPOOL_IDLE="20 ms")
    assert done.stdout == done.stderr == ""


def test_arenas_of_objects_go_back_too(run_python) -> None:
    run_python(
        """
        import os, time
        import numpy as np
        import rtpool
        pool = rtpool.activate(objects="pool")
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        np.ones(8)
        before = held()
        objects = [{i: str(i)} for i in range(300_000)]
        assert held() > before + 60
        assert pool.stats().object_bytes > 50 << 20, pool.stats()
        del objects
        end = time.monotonic() + 60
        while held() > before + 20 and time.monotonic() < end:
            time.sleep(0.05)
        assert held() <= before + 20, held() - before
        assert pool.stats().object_kept_bytes == 0
        """,
        RTPOOL_IDLE="300 ms",
    )


@pytest.mark.slow
def test_a_server_that_waits_is_not_woken(run_python) -> None:
    """What a process held that only waits goes back, and then none of its threads runs."""
    done = run_python(
        """
        import os, socket, threading, time
        import numpy as np
        import rtpool
        pool = rtpool.activate(malloc="tune", objects="pool")
        here, there = socket.socketpair()
        def serve():
            while there.recv(1):
                wave = [np.ones(3 << 20, np.uint8) for _ in range(20)]
                there.sendall(b"x")
                del wave
        server = threading.Thread(target=serve)
        server.start()
        def switches():
            count = {}
            for task in os.listdir("/proc/self/task"):
                if int(task) != os.getpid():
                    with open(f"/proc/self/task/{task}/status") as status:
                        count[task] = sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
            return count
        for _ in range(2):
            here.sendall(b"x")
            here.recv(1)
            end = time.monotonic() + 60
            while pool.stats().capacity_bytes > 8 << 20 and time.monotonic() < end:
                time.sleep(0.05)
            assert pool.stats().capacity_bytes <= 8 << 20, pool.stats()
            before, now = {}, switches()
            while before != now and time.monotonic() < end:
                before = now
                time.sleep(3)  # longer than between two looks
                now = switches()
            print(before == now)
        here.close()
        server.join()
        """,
        RTPOOL_IDLE="200 ms",
    )
    assert done.stdout.split() == ["True", "True"]
