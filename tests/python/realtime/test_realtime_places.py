"""A section has the same figures wherever it runs: activated programs, threads, other sections, beside shared pools."""

from __future__ import annotations

import pytest
from libcs import keeps_memory

LOOP = """
    import contextlib, sysconfig, threading
    import numpy as np
    import rtpool

    frame = np.random.default_rng(1).integers(0, 255, (240, 320), np.uint8)

    unserved = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

    def work(owner):
        image = frame.astype(np.float32) / 255
        blurred = (image[1:-1] + image[:-2] + image[2:]) / 3
        canvas = np.zeros((240, 320), np.float32)
        canvas[1:-1] = blurred > 0.5
        assert rtpool.owner(image) == rtpool.owner(canvas) == owner
        return np.sort(canvas, axis=None)

    def run(**more):
        arguments = dict(pool=rtpool.Pool(name="section"), warmup=20, iterations=50, strict=True)
        with rtpool.realtime("2 ms", **(arguments | more)) as rt:
            for tick in rt:
                result = work(rt.pool)
        return rt, result

    def figures(rt):
        report = rt.report
        sizes = [(entry.requested, entry.most_alive) for entry in rt.plan if entry.requested >= 4096]
        # Free-threaded Python's objects lie in heaps of its own, which nobody else can serve: a page of one is now and
        # then touched for the first time, beyond the room that the section has made. The report names it.
        own = sum(one.count for one in report.fault_origins if one.kind == "objects") if unserved else 0
        return (report.iterations, report.warmup_left, report.misses, report.kernel_calls, report.minor_faults - own,
                report.major_faults, report.collections, dict(report.deviations), report.pool.fallbacks,
                report.pool.total_count, sorted(sizes))

    plain = figures(run()[0])
    assert plain[:9] == (50, 0, 0, 0, 0, 0, 0, {}, 0), plain
    def same(rt):
        assert figures(rt) == plain, (figures(rt), plain)
"""

PLACES = {
    "activated": """
        active = rtpool.activate(malloc="tune")
        for _ in range(2):
            same(run()[0])
        assert rtpool.owner(np.empty(100_000)) == active
        rtpool.deactivate()
        same(run()[0])
    """,
    "activated, on the pool of the program": """
        active = rtpool.activate(malloc="tune")
        rt, result = run(pool=active)
        same(rt)
        assert rtpool.owner(result) == active and not active.frozen
    """,
    "in a thread": """
        seen = []
        thread = threading.Thread(target=lambda: seen.append(figures(run()[0])))
        thread.start()
        thread.join()
        assert seen == [plain], (seen, plain)
    """,
    "in a thread of an activated program": """
        rtpool.activate(malloc="tune")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(figures(run()[0])))
        thread.start()
        thread.join()
        assert seen == [plain], (seen, plain)
    """,
    "in a section": """
        with rtpool.realtime("50 ms", pool=rtpool.Pool(name="outer"), warmup=2, iterations=2) as outer:
            for tick in outer:
                np.ones(1000)
                inner, _ = run()
                same(inner)
                assert rtpool.owner(np.ones(10)) == outer.pool
        assert outer.report.iterations == 2 and outer.report.misses == outer.report.kernel_calls == 0
    """,
    "in the handler of a shared pool": """
        shared = rtpool.SharedPool.create("16 MiB")
        with rtpool.handler(shared):
            same(run()[0])
            assert rtpool.owner(np.ones(5000)) == shared
        shared.close()
    """,
    "beside arrays of a shared pool": """
        shared = rtpool.SharedPool.create("16 MiB")
        def run_sharing():
            with rtpool.realtime("2 ms", pool=rtpool.Pool(), warmup=20, iterations=50, strict=True) as rt:
                for tick in rt:
                    result = work(rt.pool)  # kept until the next one, as in the plain loop
                    with rtpool.handler(shared):
                        message = np.empty((240, 320), np.float32)
                    assert rtpool.owner(message) == shared
                    message[:] = frame
            return rt
        for _ in range(2):
            same(run_sharing())
        shared.close()
    """,
}


@keeps_memory
@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_figures_are_the_same(run_python, place: str) -> None:
    run_python(LOOP + PLACES[place].replace("\n    ", "\n"), timeout=120)
