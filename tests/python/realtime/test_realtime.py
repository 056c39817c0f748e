"""Real-time sections: the loop, its deadlines, warm-up and freezing, and how it ends."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from libcs import keeps_memory
from waits import joined

import rtpool


def quiet(**arguments: object) -> rtpool.realtime:
    """A section that leaves the process alone, with a pool of its own."""
    return rtpool.realtime(**({"pool": rtpool.Pool(), "gc": "keep", "malloc": "keep"} | arguments))  # type: ignore[arg-type]


def test_iterations_are_counted_and_numbered() -> None:
    with quiet(iterations=5) as rt:
        ticks = [(tick.index, tick.lateness, tick.skipped, tick.warmup) for tick in rt]
    assert ticks == [(number, 0.0, 0, False) for number in range(5)]
    assert rt.report.iterations == 5 and rt.report.overruns == 0 and rt.report.period is None


def test_warm_up_comes_before_the_measured_iterations() -> None:
    with quiet(warmup=3, iterations=4) as rt:
        seen = []
        for tick in rt:
            seen.append((tick.index, tick.warmup, rt.pool.frozen))
            np.ones(10_000)
    assert seen == [(-3, True, False), (-2, True, False), (-1, True, False)] + [(i, False, True) for i in range(4)]
    assert rt.report.iterations == 4
    assert not rt.pool.frozen
    assert rt.plan is not None and 80_000 in [entry.requested for entry in rt.plan]
    assert rt.report.misses == 0 and rt.report.kernel_calls == 0 and rt.report.deviations == {}


def test_deadlines_are_absolute() -> None:
    period = 0.005
    starts = []
    with quiet(period=period, iterations=20) as rt:
        for tick in rt:
            starts.append(time.monotonic() - tick.lateness)
            assert tick.lateness >= 0 and tick.budget_left <= period
    # Start minus lateness is the instant it was due: a grid, but for the time between our look at the clock and its.
    steps = [(later - starts[0]) / period for later in starts]
    assert all(step == pytest.approx(round(step), abs=0.9) for step in steps)
    report = rt.report
    assert report.iterations == 20 and report.elapsed >= 19 * period
    assert report.lateness.count == 20 and report.lateness.max == report.max_lateness


def test_overruns_are_skipped_or_caught_up() -> None:
    for overrun, expected_skips in (("skip", True), ("catch-up", False)):
        with quiet(period=0.02, iterations=4, overrun=overrun) as rt:
            skips = []
            for tick in rt:
                skips.append(tick.skipped)
                if tick.index == 0:
                    time.sleep(0.05)
                    assert tick.budget_left < 0
        assert rt.report.overruns >= 1
        assert (sum(skips) >= 2) == expected_skips
        assert rt.report.skipped == sum(skips)
        assert rt.report.slowest[0].index == 0 and rt.report.slowest[0].overrun
        if not expected_skips:
            assert rt.report.max_lateness > 0.02  # the second iteration was due while the first one slept


def test_duration_ends_the_loop() -> None:
    with quiet(period=0.01, duration=0.1) as rt:
        count = sum(1 for _ in rt)
    assert count + rt.report.skipped == 10
    with quiet(period=0.01, duration=0.1) as rt:
        count = 0
        for tick in rt:
            count += 1
            if tick.index == 3:
                time.sleep(0.15)  # past the end: what is left out is in the report
    assert count <= 4 and count + rt.report.skipped == 10
    begun = time.monotonic()
    with quiet(duration=0.05) as rt:
        for _ in rt:
            time.sleep(0.001)
    assert 0.05 <= time.monotonic() - begun < 2


def test_stop_ends_the_loop_also_from_another_thread() -> None:
    with quiet() as rt:
        for tick in rt:
            if tick.index == 7:
                rt.stop()
    assert rt.report.iterations == 8
    with quiet(period=3600.0) as rt:
        begun = time.monotonic()
        for _ in rt:  # asked from inside of the loop, so that it cannot be before it; the next is due in an hour
            threading.Timer(0.05, rt.stop).start()
    assert time.monotonic() - begun < 5
    assert rt.report.iterations == 1


def test_without_a_period_there_is_no_deadline() -> None:
    with quiet(iterations=1) as rt:
        for tick in rt:
            assert tick.budget_left == math.inf and tick.elapsed >= 0
            assert repr(tick) == "<tick 0: 0 ns late>"


def test_ticks_may_be_kept() -> None:
    with quiet(iterations=50) as rt:
        kept = list(rt)
    assert [tick.index for tick in kept] == list(range(50))


def test_a_loop_may_be_run_again_and_leaves_out_what_is_between() -> None:
    with quiet(iterations=3) as rt:
        for _ in rt:
            pass
        between = [np.ones(500_000) for _ in range(5)]
        time.sleep(0.05)
        for _ in rt:
            pass
        assert between
    assert rt.report.iterations == 6
    assert rt.report.elapsed < 0.05 and rt.report.minor_faults < 20


def test_iterations_left_by_break_or_exception_are_not_counted() -> None:
    with quiet() as rt:
        for tick in rt:
            if tick.index == 3:
                break
    assert rt.report.iterations == 3
    with pytest.raises(ZeroDivisionError), quiet() as rt:
        for tick in rt:
            1 / (2 - tick.index)
    assert rt.report.iterations == 2
    assert not rt.pool.frozen


def by_break(rt: rtpool.realtime) -> None:
    for tick in rt:
        np.ones(100_000)
        assert rt.report.iterations == 0 and rt.report.minor_faults == 0  # also when asked for inside
        if tick.index == -40:
            break


def by_exception(rt: rtpool.realtime) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for tick in rt:
            1 / (40 + tick.index)


def by_stop(rt: rtpool.realtime) -> None:
    for tick in rt:
        if tick.index == -40:
            rt.stop()


def by_ctrl_c(rt: rtpool.realtime) -> None:
    for tick in rt:
        if tick.index == -40:
            signal.raise_signal(signal.SIGINT)


def paced_by_itself(rt: rtpool.realtime) -> None:
    for _ in range(10):
        with rt.iteration():
            time.sleep(0.002)


@pytest.mark.parametrize("way", [by_break, by_exception, by_stop, by_ctrl_c, paced_by_itself])
def test_a_loop_that_ends_in_its_warm_up_has_measured_nothing(way: Callable[[rtpool.realtime], None]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's parent may have it ignored
    try:
        with quiet(period=0.001, warmup=50, iterations=5) as rt:
            way(rt)
    finally:
        signal.signal(signal.SIGINT, before)
    report = rt.report
    left = {by_stop: 39, by_ctrl_c: 39}.get(way, 40)
    assert report.iterations == 0 and report.warmup_left == left and report.overruns == report.skipped == 0
    assert report.duration.count == report.lateness.count == 0 and report.elapsed == report.max_duration == 0
    assert report.slowest == report.first == report.timeline == () and report.voluntary_switches == 0
    assert rt.plan is None and not rt.pool.frozen and report.interrupted == (way is by_ctrl_c)
    assert str(report).startswith(f"nothing was measured: the loop ended {left} iterations before")
    assert report.to_dict()["warmup_left"] == left and "nothing was measured" in report._repr_html_()


def test_a_warm_up_may_go_on_in_another_loop() -> None:
    with quiet(warmup=5, iterations=3) as rt:
        for tick in rt:
            if tick.index == -3:
                break
        assert rt.report.warmup_left == 3
        seen = [tick.index for tick in rt]
    assert seen == [-3, -2, -1, 0, 1, 2]
    assert rt.report.iterations == 3 and rt.report.warmup_left == 0


def test_loops_that_pace_themselves() -> None:
    with quiet(period=0.01, warmup=2) as rt:
        for number in range(6):
            with rt.iteration() as tick:
                assert tick.index == number - 2
                np.ones(1000)
                if number == 4:
                    time.sleep(0.02)
        with pytest.raises(RuntimeError, match="already"), rt.iteration(), rt.iteration():
            pass
        with pytest.raises(KeyError), rt.iteration():
            raise KeyError
    assert rt.report.iterations == 4 and rt.report.overruns == 1


def test_deviations_are_served_counted_and_named() -> None:
    with quiet(warmup=2, iterations=5) as rt:
        for tick in rt:
            np.ones(1000)
            if tick.index in (1, 3):
                stranger = np.ones(77_777)
                assert rtpool.owner(stranger) is None
    report = rt.report
    assert report.misses == 2 and dict(report.deviations) == {77_777 * 8: 2}
    assert report.kernel_calls == 0 and report.pool.fallbacks == 2
    assert "2 x 622,216 B" in str(report)


def test_on_miss_raise() -> None:
    with pytest.raises(MemoryError), quiet(warmup=2, on_miss="raise") as rt:
        for tick in rt:
            np.ones(1000 if tick.index < 2 else 4_000_000)  # more than growth left over
    assert rt.report.misses == 1 and not rt.pool.frozen


def test_a_plan_replaces_the_warm_up() -> None:
    learner = rtpool.Pool()
    with rtpool.handler(learner), learner.learn() as plan:
        np.ones(100_000)
    with quiet(plan=plan, iterations=3, on_miss="raise") as rt:
        for _ in rt:
            np.ones(100_000)
    assert rt.report.misses == 0 and rt.plan is plan
    with quiet(plan=plan, warmup=1, iterations=1) as rt:
        for _ in rt:
            np.ones(5_000)
    assert rt.plan is not None and {40_000, 800_000} <= {entry.requested for entry in rt.plan}


def test_zeroed_blocks_are_cleared_in_idle_time() -> None:
    with quiet(period=0.01, warmup=3, iterations=10) as rt:
        for _ in rt:
            canvas = np.zeros(500_000)
            canvas[:] = 1
    assert rt.report.zeroed_ahead >= 5 * 4_000_000
    with quiet(period=0.01, warmup=3, iterations=5, zero_ahead=False) as rt:
        for _ in rt:
            canvas = np.zeros(500_000)
            assert not canvas.any()
            canvas[:] = 1
    assert rt.report.zeroed_ahead == 0


def test_zeroed_ahead_is_zero() -> None:
    with quiet(period=0.005, warmup=5, iterations=50) as rt:
        for tick in rt:
            canvases = [np.zeros(100_000 + 512 * (tick.index % 3)) for _ in range(3)]
            assert not any(canvas.any() for canvas in canvases)
            for canvas in canvases:
                canvas.fill(tick.index)
    rt.pool.check()


@keeps_memory
def test_a_steady_loop_makes_no_fault(run_python) -> None:
    run_python(
        """
        import numpy as np, rtpool
        frame = np.random.default_rng(1).integers(0, 255, (480, 640), np.uint8)
        with rtpool.realtime(0.002, warmup=50, iterations=300) as rt:
            for tick in rt:
                image = frame.astype(np.float32) / 255
                blurred = (image[1:-1, 1:-1] + image[:-2, 1:-1] + image[2:, 1:-1]) / 3
                canvas = np.zeros((480, 640), np.float32)
                canvas[1:-1, 1:-1] = blurred > 0.5
        report = rt.report
        assert report.minor_faults == 0 and report.major_faults == 0, report
        assert report.kernel_calls == 0 and report.misses == 0 and report.collections == 0, report
        """
    )


def test_a_section_belongs_to_its_thread() -> None:
    errors: list[str] = []

    def use() -> None:
        for action in (lambda: next(iter(rt)), lambda: rt.iteration().__enter__(), lambda: rt.report):
            try:
                action()
            except RuntimeError as error:
                errors.append(str(error))

    with quiet() as rt:
        thread = threading.Thread(target=use)
        thread.start()
        joined(thread)
    assert len(errors) == 3 and all("thread" in error for error in errors)
    thread = threading.Thread(target=lambda: errors.append(repr(rt.report)))
    thread.start()
    joined(thread)
    assert errors[-1].startswith("<report:")


def test_threads_each_with_a_section() -> None:
    reports: dict[int, object] = {}

    def work(number: int) -> None:
        with quiet(period=0.002, warmup=5, iterations=40, gc="freeze") as rt:
            for _ in rt:
                np.ones(1000 * (number + 1)) * 2
        reports[number] = (rt.report.iterations, rt.report.misses, rt.report.kernel_calls)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        joined(thread)
    assert reports == {number: (40, 0, 0) for number in range(4)}


def test_a_section_is_entered_before_it_is_used_and_not_twice() -> None:
    rt = quiet()
    for use in (lambda: iter(rt), rt.iteration, lambda: rt.report, lambda: rt.pool):
        with pytest.raises(RuntimeError, match="not been entered"):
            use()
    rt.stop()
    with rt, pytest.raises(RuntimeError, match="running already"), rt:
        pass


def test_a_section_may_be_entered_again() -> None:
    rt = quiet(warmup=1, iterations=2)
    for _ in range(3):
        with rt:
            for _ in rt:
                np.ones(2000)
        assert rt.report.iterations == 2
        rt.stop()


def test_the_report_can_be_read_inside() -> None:
    with quiet(iterations=5) as rt:
        for tick in rt:
            assert rt.report.iterations == tick.index
    assert rt.report.iterations == 5
    assert rt.report is rt.report


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"period": "soon"}),
        (TypeError, {"period": b"1"}),
        (ValueError, {"duration": "10 Hz"}),
        (TypeError, {"period": True}),
        (ValueError, {"period": 0}),
        (ValueError, {"period": -1.0}),
        (ValueError, {"period": math.nan}),
        (ValueError, {"period": math.inf}),
        (ValueError, {"period": 1e-10}),
        (TypeError, {"warmup": 1.5}),
        (ValueError, {"warmup": -1}),
        (ValueError, {"iterations": -1}),
        (ValueError, {"duration": 0}),
        (ValueError, {"gc": "off"}),
        (ValueError, {"malloc": True}),
        (ValueError, {"on_miss": "grow"}),
        (ValueError, {"overrun": "wait"}),
        (ValueError, {"on_interrupt": None}),
        (ValueError, {"priority": 0}),
        (ValueError, {"priority": 100}),
        (TypeError, {"priority": "high"}),
        (ValueError, {"cpu": -1}),
        (ValueError, {"cpu": []}),
        (TypeError, {"cpu": "0"}),
        (TypeError, {"lock_process": 1}),
        (TypeError, {"strict": None}),
        (ValueError, {"spin": 0.1}),
        (ValueError, {"spin": 0.1, "period": 0.01}),
        (ValueError, {"cpu_latency": -1}),
        (TypeError, {"pool": object()}),
        (TypeError, {"plan": "plan.json"}),
    ],
)
def test_wrong_arguments(error: type[Exception], arguments: dict[str, object]) -> None:
    with pytest.raises(error):
        rtpool.realtime(**arguments)  # type: ignore[arg-type]


def test_spinning_starts_on_time() -> None:
    with quiet(period=0.005, spin=0.002, iterations=20) as rt:
        for _ in rt:
            pass
    assert rt.report.lateness.min < 20e-6


def test_a_frozen_pool_cannot_learn() -> None:
    pool = rtpool.Pool()
    pool.freeze()
    with pytest.raises(RuntimeError, match="frozen"), quiet(pool=pool, warmup=1):
        pass
    assert pool.frozen
    pool.unfreeze()
    with quiet(pool=pool), pytest.raises(RuntimeError, match="frozen"), quiet(pool=pool, warmup=1):
        pass
    assert not pool.frozen
