"""Tasks have their own context: what one enters, the others do not see."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import rtpool
from rtpool import Pool, get_handler, handler, owner

DEFAULT = get_handler()


def made_in() -> Pool | None:
    return owner(np.empty(10))


def test_tasks_enter_one_object_in_turns(pool: Pool) -> None:
    scope = handler(pool)
    other = Pool()

    async def work(number: int) -> None:
        for step in range(20):
            with scope:
                assert made_in() is pool
                await asyncio.sleep(0)
                with handler(other):
                    await asyncio.sleep(0.0001 * (number + step) % 3)
                    assert made_in() is other
                assert made_in() is pool
            assert made_in() is None
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(10)))
        assert made_in() is None

    asyncio.run(main())


def test_a_task_inherits_from_its_parent(pool: Pool) -> None:
    async def child() -> Pool | None:
        inherited = made_in()
        with handler(Pool()) as mine:
            await asyncio.sleep(0)
            assert made_in() is mine
        return inherited

    async def main() -> None:
        with handler(pool):
            task = asyncio.create_task(child())
        assert made_in() is None
        assert await task is pool
        assert made_in() is None

    asyncio.run(main())


def test_to_thread_carries_the_context(pool: Pool) -> None:
    async def main() -> None:
        with handler(pool):
            assert await asyncio.to_thread(made_in) is pool
        assert await asyncio.to_thread(made_in) is None

    asyncio.run(main())


def test_cancelled_tasks_restore(pool: Pool) -> None:
    async def sleeps() -> None:
        with handler(pool):
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(sleeps())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert get_handler() is DEFAULT

    asyncio.run(main())


def test_decorated_coroutines(pool: Pool) -> None:
    @handler(pool)
    async def work(value: int) -> tuple[int, Pool | None]:
        await asyncio.sleep(0)
        return value, made_in()

    assert asyncio.iscoroutinefunction(work) or asyncio.iscoroutinefunction(work.__wrapped__)

    async def main() -> None:
        assert await work(3) == (3, pool)
        both = await asyncio.gather(work(1), work(2))
        assert both == [(1, pool), (2, pool)]
        assert made_in() is None

    asyncio.run(main())


def test_decorated_async_generators_do_not_leak(pool: Pool) -> None:
    seen = []

    @handler(pool)
    async def produce():
        try:
            for number in range(3):
                seen.append(made_in())
                await asyncio.sleep(0)
                try:
                    seen.append((yield number))
                except KeyError:
                    seen.append("caught")
        finally:
            await asyncio.sleep(0)
            seen.append(made_in())

    async def main() -> None:
        numbers = []
        async for number in produce():
            numbers.append(number)
            assert made_in() is None
        assert numbers == [0, 1, 2]
        seen.clear()
        generator = produce()
        assert await generator.__anext__() == 0
        assert await generator.asend("sent") == 1
        assert await generator.athrow(KeyError()) == 2
        await generator.aclose()
        assert seen == [pool, "sent", pool, "caught", pool, pool]
        assert made_in() is None

    asyncio.run(main())


def test_an_async_generator_left_behind_is_closed_elsewhere(pool: Pool) -> None:
    async def leaks():
        with handler(pool):
            yield made_in()
            yield None

    async def child() -> None:
        async for found in leaks():
            assert found is pool
            break  # stays suspended; the event loop closes it in another context

    async def main() -> None:
        await asyncio.create_task(child())
        assert made_in() is None

    asyncio.run(main())
    assert get_handler() is DEFAULT


def test_contexts_that_are_run_again(pool: Pool) -> None:
    import contextvars

    context = contextvars.copy_context()
    scope = handler(pool)
    context.run(scope.__enter__)
    assert made_in() is None
    assert context.run(made_in) is pool
    context.run(scope.__exit__, None, None, None)
    assert context.run(made_in) is None
    assert rtpool.get_handler() is DEFAULT
