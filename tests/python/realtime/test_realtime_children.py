"""What a section sets for its thread stays with it: what is started inside begins as it would without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: all run on the same")

# Ways to start something; each gives what it began with: (policy, processors).
WAYS = f"""
    import concurrent.futures, gc, json, multiprocessing, os, signal, subprocess, sys, threading, warnings
    os.environ["PYTHONPATH"] = {str(Path(__file__).parent)!r}
    sys.path.insert(0, os.environ["PYTHONPATH"])
    import scheduling_calls
"""
WAYS += """
    import numpy as np
    import rtpool
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks in programs with threads

    def look(_=None):
        return os.sched_getscheduler(0), len(os.sched_getaffinity(0))

    LOOK = "import os, scheduling_calls; print(os.sched_getscheduler(0), len(os.sched_getaffinity(0)))"

    def thread():
        seen = []
        one = threading.Thread(target=lambda: seen.append(look()))
        one.start()
        one.join()
        return seen[0]

    def pool_of_threads():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(look, range(4)))[-1]

    def program(run=lambda command: subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout):
        return tuple(map(int, run([sys.executable, "-c", LOOK]).split()))

    def program_prepared():
        return program(lambda command: subprocess.check_output(command, preexec_fn=lambda: None))

    def by_shell():
        return program(lambda command: os.popen(f"{sys.executable} -c '{LOOK}'").read())

    def spawned():
        read, write = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, write, 1)]
        child = os.posix_spawn(sys.executable, [sys.executable, "-c", LOOK], os.environ, file_actions=actions)
        os.close(write)
        with os.fdopen(read) as file:
            text = file.read()
        os.waitpid(child, 0)
        return tuple(map(int, text.split()))

    def forked():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, json.dumps(look()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return tuple(json.loads(os.read(read, 100)))

    def worker_process():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.map(look, range(2))[0]

    def tasks():
        return set(map(int, os.listdir("/proc/self/task")))

    def of_task(task):
        return os.sched_getscheduler(task), len(os.sched_getaffinity(task))

    def copy_helper():
        a = np.ones(64 << 20, np.uint8)
        before = tasks()
        rtpool.copyto(np.empty_like(a), a, threads=2)
        helpers = tasks() - before
        if helpers:
            seen.append(of_task(*helpers))
        return seen[-1]  # it lives on
    seen = []

    OUTSIDE = look()
    def allowed():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            return False
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return True
    PRIORITY = 10 if allowed() else None
    CPU = min(os.sched_getaffinity(0))
    INSIDE = (os.SCHED_FIFO if PRIORITY else os.SCHED_OTHER, 1)
    def section(**more):
        arguments = dict(pool=rtpool.Pool(), priority=PRIORITY, cpu=CPU, iterations=1, malloc="keep", strict=True)
        return rtpool.realtime(0.001, **(arguments | more))
"""


def test_everything_started_inside_begins_as_outside(run_python) -> None:
    run_python(
        WAYS
        + """
    programs = (program, program_prepared, by_shell, spawned, forked, worker_process)
    for way in (thread, pool_of_threads, copy_helper, *programs):
        with section(warmup=1) as rt:
            for tick in rt:
                assert way() == OUTSIDE, way
                assert (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, len(os.sched_getaffinity(0))) == INSIDE, way
        assert way() == look() == OUTSIDE, way
    """,
        timeout=60,
    )


def test_or_with_the_sections_own_where_that_is_asked_for(run_python) -> None:
    run_python(
        WAYS
        + """
    for way in (thread, program, program_prepared, by_shell, spawned, forked):
        with section(inherit=True):
            assert way() == INSIDE, way
        assert way() == OUTSIDE, way
        with section() as rt, section(cpu=[CPU], inherit=True):
            assert way() == INSIDE, way
        with section(inherit=True), section(priority=None):
            assert way() == (INSIDE[0], 1), way  # all that the inner one sets is what the outer one has asked for
    """,
        timeout=60,
    )


def test_in_other_threads_and_sections_within_sections(run_python) -> None:
    run_python(
        WAYS
        + """
    def work():
        with section(), section(priority=PRIORITY and PRIORITY + 1, cpu=max(os.sched_getaffinity(0))):
            for way in (thread, pool_of_threads, program, forked):
                results.append(way())
        results.append(look())
    results = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads: one.start()
    for one in threads: one.join()
    assert results == [OUTSIDE] * 15, results
    """,
        timeout=60,
    )


def test_a_program_that_runs_at_settings_of_its_own_gives_those_on(run_python) -> None:
    run_python(
        WAYS
        + """
    NICE = os.nice(5)
    def nice(): return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with section():
        seen = []
        one = threading.Thread(target=lambda: seen.append((look(), nice())))
        one.start()
        one.join()
        assert seen == [(OUTSIDE, NICE)], seen
        child = os.fork()
        if child == 0:
            os._exit((look(), nice()) != (OUTSIDE, NICE))
        assert os.waitpid(child, 0)[1] == 0
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    if PRIORITY:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    before = look()
    for way in (thread, program, forked):
        with section(priority=PRIORITY and 20):
            assert way() == before, way
        assert look() == before
    """,
        timeout=60,
    )


def test_without_the_right_to_clear_the_kernels_flag(run_python) -> None:
    run_python(
        WAYS
        + """
    import resource
    if PRIORITY and os.getuid() == 0:
        try:
            resource.setrlimit(resource.RLIMIT_RTPRIO, (50, 50))
        except ValueError:
            PRIORITY, INSIDE = None, (os.SCHED_OTHER, 1)  # without CAP_SYS_RESOURCE only the affinity is seen
        with section(priority=1):
            pool_of_threads()  # everything is imported before the rights to read it are given up
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
    for way in (thread, pool_of_threads, forked):
        with section():
            assert way() == OUTSIDE, way
        assert look() == OUTSIDE and not os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK
    """,
        timeout=60,
    )


def test_threads_that_libraries_make(run_python) -> None:
    """BLAS makes its threads anew after a fork."""
    run_python(
        WAYS
        + """
    os.environ["OPENBLAS_NUM_THREADS"] = "2"
    a = np.ones((500, 500))
    with section(warmup=2, iterations=2) as rt:
        for tick in rt:
            a @ a
            if tick.index == -2:
                if (child := os.fork()) == 0:
                    os._exit(0)
                os.waitpid(child, 0)
        own = threading.get_native_id()
        others = {task: of_task(task) for task in tasks() if task != own}
    assert set(others.values()) <= {OUTSIDE}, others
    """,
        timeout=60,
    )


def test_wake_ups_are_not_made_more_precise_for_good(run_python) -> None:
    run_python(
        WAYS
        + """
    def slack():
        with open(f"/proc/{threading.get_native_id()}/timerslack_ns") as file:
            return int(file.read())
    before = slack()
    seen = []
    with rtpool.realtime("1 ms", pool=rtpool.Pool(), iterations=3) as rt:
        for tick in rt:
            one = threading.Thread(target=lambda: seen.append(slack()))
            one.start()
            one.join()
    assert seen == [before] * 3 and slack() == before, (seen, before)
    """,
        timeout=60,
    )


def test_a_forked_process_is_an_ordinary_one(run_python) -> None:
    run_python(
        WAYS
        + """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def latencies():
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return sum(os.path.exists(link) and os.readlink(link) == "/dev/cpu_dma_latency" for link in links)

    frozen = gc.get_freeze_count()  # Python 3.12 begins with some
    outer = rtpool.Pool("1 MiB")
    around = rtpool.realtime(pool=outer, on_miss="raise", cpu_latency=0)
    with around, section(warmup=2, iterations=3, cpu_latency=0) as rt:
        for tick in rt:
            np.ones(1000)
            if tick.index == 1:
                assert not gc.isenabled() and rt.pool.frozen and outer.frozen
                child = os.fork()
                if child == 0:
                    try:
                        assert gc.isenabled() and gc.get_freeze_count() <= frozen
                        assert not rt.pool.frozen and not outer.frozen
                        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
                        assert latencies() == 0
                        with rtpool.handler(outer):
                            assert rtpool.owner(np.ones(1_000_000)) == outer
                        with section(warmup=1, iterations=1) as own:
                            for _ in own:
                                pass
                        assert gc.isenabled() and own.report.iterations == 1
                    except BaseException as error:
                        print(repr(error), file=sys.stderr)
                        os._exit(1)
                    os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not gc.isenabled() and outer.frozen
    assert gc.isenabled() and not outer.frozen and latencies() == 0
    """,
        timeout=60,
    )


def test_a_child_that_goes_on_leaves_the_section_as_its_parent_does(run_python) -> None:
    run_python(
        WAYS
        + """
    with section(warmup=2, iterations=4, cpu_latency=0) as rt:
        for tick in rt:
            np.ones(1000)
            if tick.index == 1:
                child = os.fork()
    assert rt.report.iterations == 4 and gc.isenabled() and look() == OUTSIDE
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """,
        timeout=60,
    )
