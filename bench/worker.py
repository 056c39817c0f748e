"""One contestant: reads requests as JSON lines on standard input, answers on standard output.

{"prepare": CASE, "way": WAY}       builds a case and runs it a few times: {"seconds": per iteration, "first": the first
                                    one, "value": checksum}
{"run": iterations}                 times so many iterations: {"seconds": [..., one each], "faults": int}
"""

from __future__ import annotations

import array
import gc
import json
import os
import resource
import sys
import time
from typing import Any

import contestants
import numpy as np

# The answers go out by a descriptor of their own: what a program under measurement prints does not mix in.
_answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def _checksum(result: Any) -> float:
    """One number that tells different results apart."""
    if isinstance(result, tuple | list):
        return float(sum(_checksum(part) * (i + 1) for i, part in enumerate(result)))
    values = np.asarray(result)
    if values.dtype.kind not in "biufc":
        return float(values.size)
    values = np.abs(values.ravel().astype(np.complex128 if values.dtype.kind == "c" else np.float64))
    return float(np.nansum(values))


def main() -> None:
    import cases

    enter = contestants.start(sys.argv[1])
    step: Any = None
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "prepare" in request:
            with enter():
                # Inputs too: a loop inside the handler makes its arrays there.
                step = cases.build(request["prepare"], way=request["way"])
                began = time.perf_counter()
                value = step()
                answer["first"] = time.perf_counter() - began
                answer["value"] = _checksum(value)
                del value
                took = []
                for _ in range(4):
                    began = time.perf_counter()
                    step()
                    took.append(time.perf_counter() - began)
            answer["seconds"] = sorted(took)[1]
        else:
            iterations = request["run"]
            ticks = array.array("q", bytes(8 * (iterations + 1)))
            clock = time.perf_counter_ns
            gc.collect()
            with enter():
                step()
                before = _faults()
                ticks[0] = clock()
                for i in range(1, iterations + 1):
                    step()
                    ticks[i] = clock()
                answer["faults"] = _faults() - before
            answer["seconds"] = [(ticks[i + 1] - ticks[i]) * 1e-9 for i in range(iterations)]
        _answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
