"""Who holds the memory? Arrays that a loop leaves behind, by the line that made them; and a write past the end.

A debug pool remembers the line of Python at which each block was made. What is there after the loop and was not before
is what the loop left behind: here, a cache that nobody empties. Then an "extension" writes one byte too many; the pool
says which array it was, where it was made, and where it was freed.
"""

from __future__ import annotations

import ctypes

import numpy as np

import rtpool

_history: dict[int, np.ndarray] = {}


def smooth(frame: np.ndarray) -> np.ndarray:
    return (frame[1:] + frame[:-1]) / 2


def process(number: int, frame: np.ndarray) -> float:
    result = smooth(frame)
    _history[number] = result  # meant for debugging, forgotten
    return float(result.mean())


def extension_with_a_bug(array: np.ndarray) -> None:
    ctypes.memset(array.ctypes.data, 0, array.nbytes + 1)


def main() -> None:
    pool = rtpool.Pool(debug=True, name="frames")
    with rtpool.handler(pool):
        frames = [np.full((48, 64), float(number)) for number in range(8)]
        before = {block.number for block in pool.outstanding()}
        for number, frame in enumerate(frames):
            process(number, frame)
        print("left behind by the loop:")
        for block in pool.outstanding():
            if block.number not in before:
                print(f"  {block}")
        assert len(pool.outstanding()) == len(frames) + len(_history)

        print("one byte too many (the report is on standard error):", flush=True)
        scratch = np.zeros(1000, np.uint8)
        extension_with_a_bug(scratch)
        del scratch
    print(f"misuses: {pool.stats().misuses}")
    assert pool.stats().misuses == 1


if __name__ == "__main__":
    main()
