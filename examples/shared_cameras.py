"""A camera process, two workers and a display process that hand frames on without a copy.

The camera makes frames in a shared pool; what travels through the pipes is a handle of some 150 bytes. Each worker
opens a frame for reading only, makes its result in the same pool and sends that on. A frame's memory is free again when
the last process has let go of it, and goes back to the camera for one of the next frames: the pool does not grow. While
30 frames are under way the camera waits, so that the pool is never full, however late the others are.

    python examples/shared_cameras.py [frames]
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import rtpool

SHAPE = (1080, 1920, 3)
RATE = 60  # frames a second
UNDER_WAY = 30  # frames, 190 MB


def camera(pool: rtpool.SharedPool, frames: int, workers: list[Connection], room: Any) -> None:
    start = time.perf_counter()
    with rtpool.handler(pool):
        for number in range(frames):
            time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
            room.acquire()
            frame = np.empty(SHAPE, np.uint8)
            frame[:] = number % 200
            frame[number % SHAPE[0]] = 255  # a line that moves
            workers[number % 2].send((number, time.perf_counter(), pool.share(frame)))
    for worker in workers:
        worker.send(None)


def find_line(pool: rtpool.SharedPool, frames: Connection, results: Any) -> None:
    """Mark in a small picture where the line is."""
    with rtpool.handler(pool):
        while (message := frames.recv()) is not None:
            number, taken, handle = message
            frame = handle.open(writeable=False)
            small = frame[::8, ::8].copy()
            row = int(frame[:, 0, 0].argmax())
            small[row // 8] = (255, 0, 0)
            results.put((number, taken, row, pool.share(small)))
    results.put(None)


def display(results: Any, room: Any, answer: Connection) -> None:
    seen, late, delays = 0, 2, []
    while late:
        message = results.get()
        if message is None:
            late -= 1
            continue
        number, taken, row, handle = message
        picture = handle.open(writeable=False)
        assert row == number % SHAPE[0] and tuple(picture[row // 8, 5]) == (255, 0, 0)
        del handle, message
        room.release()
        delays.append(time.perf_counter() - taken)
        seen += 1
    answer.send((seen, sorted(delays)[len(delays) // 2]))


def main(frames: int = 100) -> None:
    context = multiprocessing.get_context("spawn")
    with rtpool.SharedPool.create("256 MiB") as pool:
        results = context.SimpleQueue()
        room = context.Semaphore(UNDER_WAY)
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        answer, display_end = context.Pipe(duplex=False)
        processes = [
            context.Process(target=camera, args=(pool, frames, [send for _, send in pipes], room)),
            *(context.Process(target=find_line, args=(pool, receive, results)) for receive, _ in pipes),
            context.Process(target=display, args=(results, room, display_end)),
        ]
        for process in processes:
            process.start()
        seen, delay = answer.recv()
        for process in processes:
            process.join()
        pool.check()
        stats = pool.stats()
        print(f"{seen} frames of {np.prod(SHAPE) / 1e6:.1f} MB shown; camera to display {delay * 1e3:.2f} ms (median)")
        print(f"left in the pool: {stats.current_count} arrays, {stats.in_flight_count} handles under way")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
