"""The scoped handler: where it holds, and that leaving it restores what was before."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from waits import LIMIT, joined

import rtpool
from rtpool import Pool, get_handler, handler, owner, set_handler

DEFAULT = get_handler()


def made_in() -> Pool | None:
    """The pool that an array made right here comes from."""
    return owner(np.empty(10))


@pytest.fixture(autouse=True)
def nothing_stays():
    """Every test leaves the handler of its context as it was."""
    assert get_handler() is DEFAULT
    yield
    assert get_handler() is DEFAULT


def test_arrays_inside_come_from_the_pool(pool: Pool) -> None:
    assert made_in() is None
    with handler(pool) as entered:
        assert entered is pool
        assert made_in() is pool
    assert made_in() is None


def test_the_default_pool_is_used_where_none_is_named() -> None:
    with handler() as pool:
        assert pool is rtpool.default_pool()
        assert made_in() is pool


def test_every_way_to_make_an_array(pool: Pool) -> None:
    with handler(pool):
        base = np.arange(1000.0)
        made = [
            base,
            base * 2 + 1,
            np.zeros((10, 10)),
            np.full(5, "text"),
            np.array([{}, [], None], dtype=object),
            np.concatenate([base, base]),
            base.astype(np.float32),
            np.linspace(0, 1, 7),
            np.sort(base[::-1]),
            np.fromiter(range(100), float),
            np.frombuffer(b"12345678", np.uint8).copy(),
            base.reshape(10, 100).T.copy(),
            np.empty((2, 0, 2)),
            np.empty(0),
            np.array(3.0),
            np.char.add(["a", "b"], "c"),
        ]
    for array in made:
        assert array in pool, array
        assert owner(array) is pool
    grown = made[0]
    grown.resize(100_000, refcheck=False)
    assert grown in pool
    assert (grown[:1000] == np.arange(1000.0)).all()
    assert not grown[1000:].any()


def test_names_and_versions(pool: Pool) -> None:
    core = "numpy._core" if np.__version__ >= "2" else "numpy.core"
    multiarray = importlib.import_module(core + ".multiarray")
    with handler(pool):
        inside = np.empty(10)
        assert multiarray.get_handler_name() == "rtpool"
    assert multiarray.get_handler_name(inside) == "rtpool"
    assert multiarray.get_handler_version(inside) == 1
    assert multiarray.get_handler_name() == "default_allocator"
    assert multiarray.get_handler_name(np.empty(3)) == "default_allocator"


def test_owner_looks_through_views(pool: Pool) -> None:
    with handler(pool):
        base = np.arange(100.0)
    assert owner(base[3:50:2].reshape(4, 6)) is pool
    assert owner(np.frombuffer(base, np.uint8)) is pool
    assert owner(np.asarray(memoryview(base)[10:20])) is pool
    assert base[5:] in pool
    assert owner(np.frombuffer(b"bytes", np.uint8)) is None
    with pytest.raises(TypeError, match=r"owner\(\) needs a NumPy array, not list"):
        owner([1])  # type: ignore[arg-type]


def test_nesting(pool: Pool) -> None:
    inner = Pool()
    with handler(pool):
        with handler(inner):
            assert made_in() is inner
            with handler(pool):
                assert made_in() is pool
            assert made_in() is inner
        assert made_in() is pool
        with handler():
            assert made_in() is rtpool.default_pool()
        assert made_in() is pool


def test_one_object_entered_again(pool: Pool) -> None:
    scope = handler(pool)
    for _ in range(3):
        with scope, scope, scope:
            assert made_in() is pool
        assert made_in() is None


def test_an_exception_restores(pool: Pool) -> None:
    for error in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(error), handler(pool), handler(Pool()):
            raise error
        assert made_in() is None


def test_what_was_set_by_hand_is_restored(pool: Pool) -> None:
    by_hand = Pool()
    before = set_handler(by_hand)
    try:
        with handler(pool):
            set_handler(None)
            assert made_in() is None
        assert made_in() is by_hand
    finally:
        set_handler(before)


def test_set_and_get_handler(pool: Pool) -> None:
    with handler(pool):
        capsule = get_handler()
        inside = np.empty(10)
    assert get_handler(inside) is capsule
    assert get_handler(inside[2:]) is None
    assert get_handler(np.empty(3)) is DEFAULT
    assert set_handler(capsule) is DEFAULT
    assert made_in() is pool
    assert set_handler(pool) is capsule
    assert set_handler(None) is capsule
    assert made_in() is None
    for wrong in (7, "pool", [], np.empty(3)):
        with pytest.raises(TypeError):
            set_handler(wrong)
        with pytest.raises(TypeError):
            handler(wrong)
    with pytest.raises(TypeError, match="NumPy array or None"):
        get_handler([1])  # type: ignore[arg-type]


def test_capsules_of_another_name_are_refused() -> None:
    import datetime

    with pytest.raises(ValueError, match="mem_handler"):
        set_handler(datetime.datetime_CAPI)  # type: ignore[attr-defined]


def test_anything_with_a_capsule_is_a_pool(pool: Pool) -> None:
    class Other:
        _capsule = pool._capsule

    other = Other()
    with handler(other) as entered:
        assert entered is other
        assert made_in() is pool
    with pytest.raises(TypeError, match="per_thread"):
        handler(other, per_thread=True)


def test_wrong_arguments(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"@rtpool\.handler\(\)"):
        handler(lambda: None)
    with pytest.raises(TypeError):
        handler(pool, True)  # type: ignore[misc]
    with pytest.raises(TypeError):
        handler(pool, threads=True)  # type: ignore[call-arg]


def test_leaving_without_entering(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="left without having been entered"):
        handler(pool).__exit__(None, None, None)
    with handler(pool):
        with pytest.raises(RuntimeError, match="left without having been entered"):
            handler(pool).__exit__(None, None, None)
        assert made_in() is pool


def test_repr(pool: Pool) -> None:
    assert repr(handler()) == "<rtpool.handler of the default pool>"
    assert "'test'" in repr(handler(pool, per_thread=True))
    assert "one for each thread" in repr(handler(pool, per_thread=True))
    assert handler(pool).pool is pool


def test_other_threads_are_not_concerned_unless_they_inherit_the_context(pool: Pool) -> None:
    """As Python's threads do with `-X thread_inherit_context`: free-threaded builds from 3.14 on by themselves."""
    inherited = pool if getattr(sys.flags, "thread_inherit_context", 0) else None
    with handler(pool), ThreadPoolExecutor(1) as workers:
        assert workers.submit(made_in).result(LIMIT) is inherited
        assert made_in() is pool


def test_many_threads_enter_one_object(pool: Pool) -> None:
    scope = handler(pool)
    start = threading.Barrier(8, timeout=LIMIT)

    def work() -> None:
        start.wait()
        for _ in range(200):
            with scope:
                assert made_in() is pool
                with scope:
                    assert made_in() is pool
            assert made_in() is None

    with ThreadPoolExecutor(8) as workers:
        for done in [workers.submit(work) for _ in range(8)]:
            done.result(LIMIT)


def test_per_thread_pools_are_private(pool: Pool) -> None:
    scope = handler(pool, per_thread=True)
    start = threading.Barrier(4, timeout=LIMIT)

    def work() -> Pool:
        with scope as mine:
            start.wait()
            assert made_in() is mine
        with scope as again:
            assert again is mine
        with handler(pool, per_thread=True) as other:
            assert other is not mine
        return mine

    with ThreadPoolExecutor(4) as workers:
        pools = [done.result(LIMIT) for done in [workers.submit(work) for _ in range(4)]]
    assert len({*pools, pool}) == 5
    for private in pools:
        assert private._asked() | {"name": "test"} == pool._asked()
        assert private.name.startswith("test/")
        private.check()


def test_per_thread_pools_end_with_their_thread() -> None:
    scope = handler(Pool(name="model"), per_thread=True)
    kept = []

    def work() -> None:
        with scope:
            kept.append(np.arange(1000))

    thread = threading.Thread(target=work)
    thread.start()
    joined(thread)
    gc.collect()
    assert (kept[0] == np.arange(1000)).all()
    found = owner(kept[0])
    assert found is not None
    assert found.name.startswith("model/")
    assert found.stats().current_count == 1


def test_per_thread_of_the_default_pool() -> None:
    with handler(per_thread=True) as mine:
        assert mine is not rtpool.default_pool()
        assert made_in() is mine


def test_a_suspended_generator_leaks_as_localcontext_does(pool: Pool) -> None:
    def leaks():
        with handler(pool):
            yield 1
            yield 2

    generator = leaks()
    next(generator)
    assert made_in() is pool
    other = Pool()
    with handler(other):
        assert list(generator) == [2]  # ends below the handler that is in force now
        assert made_in() is other
    assert made_in() is None


def test_generators_that_end_in_any_order(pool: Pool) -> None:
    pools = [Pool() for _ in range(4)]

    def leaks(mine: Pool):
        with handler(mine):
            yield

    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]):
        generators = [leaks(mine) for mine in pools]
        for generator in generators:
            next(generator)
        for number in order:
            generators[number].close()
        assert get_handler() is DEFAULT


def test_a_generator_closed_in_another_thread(pool: Pool) -> None:
    def leaks():
        with handler(pool):
            yield

    generator = leaks()

    def first() -> None:
        next(generator)

    def second() -> None:
        assert made_in() is None
        generator.close()
        assert made_in() is None

    for work in (first, second):
        with ThreadPoolExecutor(1) as workers:
            workers.submit(work).result(LIMIT)


def test_decorated_functions(pool: Pool) -> None:
    @handler(pool)
    def work(a: int, *, b: int = 2) -> tuple[int, int, Pool | None]:
        """Docs."""
        return a, b, made_in()

    assert work(1, b=3) == (1, 3, pool)
    assert (work.__name__, work.__doc__) == ("work", "Docs.")
    assert made_in() is None

    @handler(pool)
    def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert made_in() is None

    @handler(pool)
    def recursive(depth: int) -> Pool | None:
        return recursive(depth - 1) if depth else made_in()

    assert recursive(50) is pool


def test_decorated_methods(pool: Pool) -> None:
    class Filter:
        @handler(pool)
        def step(self) -> tuple[object, Pool | None]:
            return self, made_in()

    one = Filter()
    assert one.step() == (one, pool)


def test_decorated_generators_do_not_leak(pool: Pool) -> None:
    seen = []

    @handler(pool)
    def produce(count: int):
        try:
            for number in range(count):
                seen.append(made_in())
                got = yield number
                seen.append(got)
        except KeyError:
            seen.append(made_in())
            yield "caught"
        finally:
            seen.append(made_in())
        return "end"

    generator = produce(3)
    assert next(generator) == 0
    assert made_in() is None
    assert generator.send("sent") == 1
    assert generator.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "end"
    assert seen == [pool, "sent", pool, pool, pool]
    assert list(produce(4)) == [0, 1, 2, 3]

    seen.clear()
    closed = produce(3)
    next(closed)
    closed.close()
    assert seen == [pool, pool]

    @handler(pool)
    def fails():
        yield made_in()
        raise ValueError("inside")

    failing = fails()
    assert next(failing) is pool
    with pytest.raises(ValueError, match="inside"):
        next(failing)
    assert made_in() is None


def test_what_cannot_be_decorated(pool: Pool) -> None:
    for wrong in (int, Pool, 7, "text"):
        with pytest.raises(TypeError, match="decorates functions"):
            handler(pool)(wrong)  # type: ignore[type-var]
