"""Ctrl-C and other signals while a section runs: answered in a wait, whoever takes them, and the program goes on."""

from __future__ import annotations

import pytest

INTERRUPTED = """
    import os, signal, threading, time
    import numpy as np, rtpool
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's parent may have it ignored
    def press(after):
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


def test_ctrl_c_ends_the_loop_and_the_program_goes_on(run_python) -> None:
    done = run_python(
        INTERRUPTED
        + """
    with rtpool.realtime(0.05) as rt:  # most of the time asleep
        for tick in rt:
            last = tick.index
            if last == 0:
                press(0.1)
    assert rt.interrupted and rt.report.interrupted and rt.report.iterations == last + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with rtpool.realtime() as rt:  # most of the time at work
        for tick in rt:
            np.ones(100_000)
            if tick.index == 0:
                press(0.1)
    assert rt.report.interrupted
    print("ended by Ctrl-C" if "by Ctrl-C" in str(rt.report) else "?")
    """
    )
    assert done.stdout == "ended by Ctrl-C\n"


def test_a_wait_answers_signals_whichever_thread_takes_them(run_python) -> None:
    """The next iteration is due in an hour: an answer that waits for it does not come."""
    run_python(
        INTERRUPTED
        + """
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    class Stop(BaseException):
        pass
    def stop(*_):
        raise Stop
    signal.signal(signal.SIGTERM, stop)
    def send(number, to):
        threading.Timer(0.05, lambda: signal.pthread_kill(to.ident, number)).start()
    for spin in (0, 3599):  # asleep, and looking at the clock
        for taker in (other, threading.main_thread()):
            try:
                with rtpool.realtime("1 h", spin=spin) as rt:
                    for tick in rt:
                        assert tick.index == 0
                        send(signal.SIGTERM, taker)
            except Stop:
                pass
            else:
                raise AssertionError("no answer")
            assert rt.report.iterations == 1
            with rtpool.realtime("1 h", spin=spin) as rt:
                for tick in rt:
                    assert tick.index == 0
                    send(signal.SIGINT, taker)
            assert rt.interrupted and rt.report.iterations == 1
            rt = rtpool.realtime("1 h", spin=spin, on_interrupt="raise")
            try:
                with rt:
                    for tick in rt:
                        send(signal.SIGINT, taker)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("no answer")
    done.set()
    """
    )


def test_a_signal_ends_a_section_of_another_thread(run_python) -> None:
    """Python's handlers run in the main thread, and may stop a loop elsewhere."""
    run_python(
        INTERRUPTED
        + """
    rt = rtpool.realtime("1 h")
    begun = threading.Event()
    def work():
        with rt:
            for tick in rt:
                begun.set()
    thread = threading.Thread(target=work)
    thread.start()
    signal.signal(signal.SIGUSR1, lambda *_: rt.stop())
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    begun.wait()
    signal.pthread_kill(thread.ident, signal.SIGUSR1)  # interrupts its sleep, which goes on until the flag is seen
    # The thread takes the signal, whenever it comes to run. Python's handler is for the main thread, which no signal
    # has interrupted: in a join alone it would not run it.
    os.read(told, 1)
    thread.join()
    assert rt.report.iterations == 1
    """
    )


@pytest.mark.slow
def test_ctrl_c_outside_of_the_loop_or_twice_raises(run_python) -> None:
    run_python(
        INTERRUPTED
        + """
    for body in ("outside", "twice", "asked"):
        rt = rtpool.realtime(on_interrupt="raise" if body == "asked" else "stop")
        try:
            with rt:
                if body == "outside":
                    press(0.05)
                    time.sleep(60)  # until the signal comes
                for tick in rt:
                    press(0.05)
                    if body == "twice":
                        seen = threading.Event()
                        threading.Thread(target=lambda: (seen.wait(), press(0)), daemon=True).start()
                        while not rt.interrupted:
                            pass
                        seen.set()
                    time.sleep(60)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError(body)
        assert not rt.pool.frozen and rt.report.iterations == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """
    )


def test_ctrl_c_ends_nested_loops_and_respects_other_handlers(run_python) -> None:
    run_python(
        INTERRUPTED
        + """
    outer, inner = rtpool.realtime(), rtpool.realtime()
    with outer:
        for _ in outer:
            with inner:
                for tick in inner:
                    if tick.index == 0:
                        press(0.1)
    assert outer.interrupted and inner.interrupted and outer.report.iterations == 1

    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    with rtpool.realtime(0.01, duration=0.3) as rt:
        for tick in rt:
            if tick.index == 0:
                press(0.05)
    assert seen == [1] and not rt.interrupted and rt.report.iterations + rt.report.skipped == 30
    """
    )
