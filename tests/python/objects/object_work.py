"""What a program does with objects, and where Python asks for arenas at all."""

from __future__ import annotations

import sysconfig

import pytest

from rtpool._pool.objects import refusal

served = pytest.mark.skipif(refusal() is not None, reason=f"arenas are not asked for: {refusal()}")
gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
pymalloc = pytest.mark.skipif(not gil, reason="free-threaded Python has one allocator, and no arenas")
free_threaded = pytest.mark.skipif(gil, reason="free-threaded builds only")

# What a program does with objects: each of these made Python take and give arenas back in every iteration.
LOOPS = """
import json
import numpy as np
import resource
import rtpool

numbers = np.arange(200_000)
message = json.dumps({"points": [[i, float(i)] for i in range(640)]})
work = {
    "dicts": lambda: [{"i": i, "v": (i, float(i))} for i in range(20_000)],
    "tolist": numbers.tolist,
    "strings": lambda: ",".join(str(x) for x in range(100_000)),
    "messages": lambda: [json.loads(message) for _ in range(20)],
}

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""


def churn(count: int = 20_000) -> list[dict[str, object]]:
    return [{"i": i, "v": (i, float(i))} for i in range(count)]
