"""Arrays outlive the block, the pool object, the thread and a fork, thousands of times over and without growth."""

from __future__ import annotations

import gc
import shutil
import subprocess
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from waits import LIMIT, joined

import rtpool
from rtpool import Pool, handler, owner

ROUNDS = 10_000


def resident_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def mappings() -> int:
    with open("/proc/self/maps") as maps:
        return len(maps.readlines())


def test_arrays_keep_their_pool() -> None:
    with handler(Pool("1 MiB", name="gone")):
        kept = np.arange(1000)
        view = np.arange(5000)[10:20]
    gc.collect()
    assert (kept == np.arange(1000)).all()
    assert (view == np.arange(10, 20)).all()
    again = owner(kept)
    assert again is not None
    assert again.name == "gone"
    assert again is owner(view)
    assert again == owner(kept)
    assert again.stats().current_count == 2
    again.check()


def test_a_pool_object_is_found_again_or_made_anew() -> None:
    pool = Pool(name="known")
    with handler(pool):
        kept = np.empty(10)
    assert owner(kept) is pool
    number = pool._id()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    anew = owner(kept)
    assert anew is not None
    assert anew._id() == number
    assert owner(kept) is anew
    with handler(anew):
        assert owner(np.empty(10)) is anew


@pytest.mark.slow
def test_the_last_array_releases_the_pool() -> None:
    def once() -> None:
        with handler(Pool("64 KiB")):
            kept = [np.empty(1000), np.zeros(5)]
        del kept

    once()
    gc.collect()
    before = mappings(), resident_kib()
    for _ in range(ROUNDS):
        once()
    gc.collect()
    assert mappings() <= before[0] + 3
    assert resident_kib() <= before[1] + 8192


@pytest.mark.slow
def test_pools_come_and_go() -> None:
    for _ in range(20):
        Pool("1 MiB")
    before = mappings(), resident_kib()
    for _ in range(ROUNDS):
        Pool("64 KiB")
    assert mappings() <= before[0] + 3
    assert resident_kib() <= before[1] + 8192


def test_objects_of_one_pool_come_and_go() -> None:
    with handler(Pool(name="kept by its array")):
        kept = np.empty(10)
    for _ in range(ROUNDS):
        found = owner(kept)
        assert found is not None
        del found
    found = owner(kept)
    assert found is not None
    assert found.stats().current_count == 1


def test_handlers_without_growth(pool: Pool) -> None:
    import sys

    scope = handler(pool)
    with scope:
        np.empty(10)
    counts = sys.getrefcount(pool), sys.getrefcount(pool._capsule), sys.getrefcount(scope)
    for _ in range(ROUNDS):
        with scope, handler(pool):
            np.empty(10)
    assert (sys.getrefcount(pool), sys.getrefcount(pool._capsule), sys.getrefcount(scope)) == counts
    assert pool.stats().current_count == 0


@pytest.mark.slow
def test_threads_that_die_with_live_blocks(pool: Pool) -> None:
    kept: list[np.ndarray] = []

    def work(number: int) -> None:
        with handler(pool):
            kept.append(np.full(100, number))
            kept.append(np.full(5000, number))
            np.empty(200_000, np.uint8)

    def round_of(count: int) -> None:
        for number in range(count):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            thread.join()
            assert all((a == number).all() for a in kept)
            kept.clear()

    round_of(100)
    before = pool.stats()
    round_of(ROUNDS)
    after = pool.stats()
    assert after.capacity_bytes == before.capacity_bytes
    assert after.growths == before.growths
    assert after.current_count == 0
    assert after.misuses == 0


def test_other_threads_free(pool: Pool) -> None:
    """Batches of arrays whose last reference another thread drops, while the one that made them makes the next batch.

    Without a GIL an array is freed by the thread that made it unless that one has let go of it first; so it does.
    """
    import queue

    passed: queue.Queue[list[np.ndarray] | None] = queue.Queue()
    taken: queue.Queue[None] = queue.Queue()
    let_go: queue.Queue[None] = queue.Queue()

    def consume() -> None:
        while (batch := passed.get(timeout=LIMIT)) is not None:
            arrays = list(batch)
            taken.put(None)
            let_go.get(timeout=LIMIT)
            for array in arrays:
                assert array[0] == array[-1]
            array = None
            arrays.clear()

    thread = threading.Thread(target=consume)
    thread.start()
    sizes = [10, 1000, 30_000, 300_000]
    batch_size = 50
    with handler(pool):
        capacity = []
        for first in range(0, ROUNDS, batch_size):
            numbers = range(first, first + batch_size)
            batch = [np.full(sizes[number % 4], number % 251, np.uint8) for number in numbers]
            passed.put(batch)
            taken.get(timeout=60)
            batch.clear()
            let_go.put(None)
            if first % (ROUNDS // 10) == 0:
                capacity.append(pool.stats().capacity_bytes)
    passed.put(None)
    joined(thread)
    assert capacity[-1] <= capacity[len(capacity) // 2] + (4 << 20)
    stats = pool.stats()
    assert stats.current_count == 0
    assert stats.remote_frees == ROUNDS
    assert stats.misuses == 0


SOURCE = """
#include <pthread.h>
#include <stddef.h>
typedef struct {
  char name[127]; unsigned char version;
  void *ctx, *(*malloc)(void*, size_t), *(*calloc)(void*, size_t, size_t), *(*realloc)(void*, void*, size_t);
  void (*free)(void*, void*, size_t);
} Handler;
static void* run(void* argument) {
  Handler* h = argument;
  for (int i = 0; i < 100; ++i) {
    char* a = h->malloc(h->ctx, 100 + i * 50);
    char* b = h->calloc(h->ctx, 10, 100 + i);
    if (!a || !b || b[999] != 0) return argument;
    a = h->realloc(h->ctx, a, 200 + i * 100);
    if (!a) return argument;
    h->free(h->ctx, a, 0);
    h->free(h->ctx, b, (size_t)1 << 60);
    h->free(h->ctx, NULL, 0);
  }
  return h->calloc(h->ctx, (size_t)1 << 40, (size_t)1 << 40); /* overflows: no memory, NULL */
}
int from_a_plain_thread(Handler* handler) {
  pthread_t thread;
  void* failed = NULL;
  if (pthread_create(&thread, NULL, run, handler)) return -1;
  pthread_join(thread, &failed);
  return failed != NULL;
}
"""


@pytest.fixture(scope="module")
def plain_thread(tmp_path_factory: pytest.TempPathFactory):
    """A C function that uses a handler in a thread that Python does not know."""
    import ctypes

    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler")
    folder: Path = tmp_path_factory.mktemp("plain")
    (folder / "plain.c").write_text(SOURCE)
    subprocess.run(
        [compiler, "-x", "c", "-shared", "-fPIC", "-pthread", "-o", folder / "plain.so", folder / "plain.c"],
        timeout=120,
        check=True,
    )
    function = ctypes.CDLL(str(folder / "plain.so")).from_a_plain_thread
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    function.argtypes = [ctypes.c_void_p]
    return lambda capsule: function(pointer(capsule, b"mem_handler"))


def test_threads_without_python_state(pool: Pool, plain_thread) -> None:
    for _ in range(100):
        assert plain_thread(pool._capsule) == 0
    before = pool.stats()
    for _ in range(ROUNDS):
        assert plain_thread(pool._capsule) == 0
    stats = pool.stats()
    assert (stats.current_count, stats.misuses) == (0, 0)
    assert stats.total_count >= ROUNDS * 200
    assert stats.capacity_bytes <= before.capacity_bytes + (16 << 20)


def test_frees_in_garbage_collection(pool: Pool) -> None:
    class Cycle:
        pass

    with handler(pool):
        for _ in range(1000):
            cycle = Cycle()
            cycle.me, cycle.data = cycle, np.empty(1000)
        del cycle
    gc.collect()
    assert pool.stats().current_count == 0


def test_at_interpreter_exit(run_python) -> None:
    done = run_python(
        """
        import atexit, sys, threading, numpy as np, rtpool
        pool = rtpool.Pool("4 MiB", name="exit")
        with rtpool.handler(pool):
            module_level = [np.ones(n) for n in (1, 1000, 100_000)]
            class Late:
                def __init__(self): self.data = np.ones(1000); self.me = self
                def __del__(self): self.data = None
            late = Late()
            sys.modules["keeps_arrays"] = np.ones(50_000)
            atexit.register(lambda a: print(a.sum()), np.ones(10))
        rtpool.activate()
        active = [np.ones(n) for n in (1, 1000, 100_000)]
        cycle = [np.ones(1000)]; cycle.append(cycle)
        def runs():
            with rtpool.handler():
                while True:
                    np.ones(1000) + 1
        threading.Thread(target=runs, daemon=True).start()
        rtpool.set_handler(pool)
        print("end")
        """
    )
    assert done.stdout.split() == ["end", "10.0"]
    assert done.stderr == ""


def test_in_a_forked_child(run_python) -> None:
    done = run_python(
        """
        import os, sys, threading, warnings, numpy as np, rtpool
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = rtpool.Pool("16 MiB", name="forked")
        rtpool.activate()
        stop = threading.Event()
        def busy():
            with rtpool.handler(pool):
                while not stop.is_set():
                    np.ones(1000) + np.ones(100_000)[:1000]
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        with rtpool.handler(pool):
            kept = [np.full(n, 7, np.uint8) for n in (10, 5000, 300_000)]
            for number in range(50):
                child = os.fork()
                if child == 0:
                    ok = all((a == 7).all() for a in kept)
                    made = [np.full(n, number) for n in (10, 5000, 100_000)]
                    ok = ok and all((a == number).all() and a in pool for a in made)
                    kept.clear()
                    made.clear()
                    rtpool.set_handler(None)
                    ok = ok and rtpool.owner(np.ones(1000)) is rtpool.active_pool()
                    pool.check()
                    os._exit(0 if ok else 1)
                _, status = os.waitpid(child, 0)
                assert status == 0, status
            assert all((a == 7).all() for a in kept)
        stop.set()
        for thread in threads:
            thread.join()
        assert pool.stats().misuses == 0
        pool.check()
        print("done")
        """
    )
    assert done.stdout == "done\n"


def test_with_multiprocessing(run_python) -> None:
    for method in ("fork", "spawn"):
        run_python(
            f"""
            import multiprocessing, warnings, numpy as np, rtpool
            warnings.simplefilter("ignore", DeprecationWarning)
            rtpool.activate()
            kept = np.ones(100_000)
            context = multiprocessing.get_context({method!r})
            if __name__ == "__main__":
                with context.Pool(2) as workers:
                    assert [a.sum() for a in workers.map(np.ones, [10, 100_000] * 10)] == [10.0, 100_000.0] * 10
            """
        )


def test_a_second_load_is_refused(run_python) -> None:
    run_python(
        """
        import sys, rtpool
        for name in [n for n in sys.modules if n.startswith("rtpool")]:
            del sys.modules[name]
        try:
            import rtpool
        except ImportError as error:
            assert "once a process" in str(error), error
        else:
            raise SystemExit("loaded twice")
        """
    )


def test_misuse_is_survived_and_reported(run_python) -> None:
    done = run_python(
        """
        import ctypes, numpy as np, rtpool
        class Handler(ctypes.Structure):
            _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("ctx", ctypes.c_void_p),
                        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
                        ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
                        ("free", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t))]
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        pool = rtpool.Pool("1 MiB", name="misused")
        h = Handler.from_address(pointer(pool._capsule, b"mem_handler"))
        assert (h.name, h.version) == (b"rtpool", 1)
        block, large = h.malloc(h.ctx, 100), h.malloc(h.ctx, 100_000)
        h.free(h.ctx, block, 100)
        h.free(h.ctx, block, 100)            # twice
        h.free(h.ctx, large + 4096, 0)       # inside
        h.free(h.ctx, large + 8, 0)
        h.free(h.ctx, id(pool), 0)           # foreign
        h.free(h.ctx, large, 1 << 60)
        h.free(h.ctx, large, 0)              # twice
        assert pool.stats().misuses == 5, pool.stats()
        assert pool.stats().current_count == 0
        pool.check()
        """
    )
    assert done.stderr.count("rtpool: ") == 5
    assert done.stderr.count("'misused'") == 5


def test_subinterpreters_are_refused(run_python) -> None:
    run_python(
        """
        import rtpool
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            raise SystemExit(0)
        number = interpreters.create()
        try:
            failed = interpreters.run_string(number, "import rtpool._core")
            refused = failed is not None
        except Exception:
            refused = True
        assert refused
        interpreters.destroy(number)
        """
    )


def test_weak_pools_registry_stays_small() -> None:
    pools = [Pool() for _ in range(100)]
    assert len({pool._id() for pool in pools}) == 100
    assert all(rtpool.Pool._id(pool) == pool._id() for pool in pools)
