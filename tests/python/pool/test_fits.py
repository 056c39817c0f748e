"""A request is refused only where the live blocks leave no room for it."""

from __future__ import annotations

import pytest

# Beside the pool, what an allocator would have that wastes nothing but what blocks are rounded up by; and, where the
# kernel has larger pages, what else is in those that a block begins and ends in: only whole ones go elsewhere.
FITS = """
import mmap, random
import numpy as np
import rtpool
MIB = 1 << 20
LIMIT = 128 * MIB
rng = random.Random(9)
pool = rtpool.Pool(limit=LIMIT, when_full="raise")
had = ideal = held = 0
mine, alive, ids, seen = {}, {}, [], set()
with rtpool.handler(pool):
    for n in range(20000):
        size = int(SMALLEST * (4 * MIB / SMALLEST) ** rng.random())
        while size in seen:
            size += 1
        seen.add(size)
        pinned = 2 * (mmap.PAGESIZE - 4096)
        rounded = -(-size // 64) * 64 if size <= 4032 else -(-size // 4096) * 4096 + pinned
        if held + rounded <= LIMIT:
            ideal += 1
            held += rounded
            alive[n] = rounded
            ids.append(n)
            try:
                mine[n] = np.empty(size, np.uint8)
                had += 1
            except MemoryError:
                pass
        if n not in alive or rng.random() < 0.5:
            at = rng.randrange(len(ids))
            ids[at], ids[-1] = ids[-1], ids[at]
            dropped = ids.pop()
            held -= alive.pop(dropped)
            mine.pop(dropped, None)
assert held > LIMIT * 0.9 and ideal < 19000, "the limit was not reached"
assert had >= LEAST * ideal, (had, ideal)
pool.check()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("smallest", "least"), [(4096, 1.0), (64, 0.99)])
def test_what_fits_a_limit_is_had_where_no_size_comes_twice(run_python, smallest: int, least: float) -> None:
    """All of what fits; where most arrays are small, slabs that are not full may keep room from the last one."""
    run_python(f"SMALLEST, LEAST = {smallest}, {least}\n" + FITS)
