"""The processes that share a pool with the load."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from verified import Verified, check

import rtpool


def resident_bytes(process: int | str = "self") -> int:
    """Private memory of a process that is resident; that of a shared pool is counted by the pool."""
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def _echo(pool: rtpool.SharedPool, pipe: Connection) -> None:
    """Check what comes, answer with an array of this process's own."""
    while (message := pipe.recv()) is not None:
        if message == "resident":
            pool.trim()  # with it go blocks that the other process freed and this one has not taken back yet
            pipe.send(resident_bytes())
            continue
        handle, seed = message
        array = handle.open(writeable=False)
        with np.errstate(over="ignore"):
            check(array, seed)
        with rtpool.handler(pool):
            own = Verified(array.nbytes)
        pipe.send((pool.share(own.array), own.seed))
        del message, handle, array, own


class Echo:
    """A process that lives as long as the load."""

    def __init__(self, pool: rtpool.SharedPool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_echo, args=(pool, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, handle: Any, seed: int) -> tuple[Any, int]:
        self._pipe.send((handle, seed))
        answer: tuple[Any, int] = self._pipe.recv()
        return answer

    def resident(self) -> int:
        self._pipe.send("resident")
        answer: int = self._pipe.recv()
        return answer

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join(60)


def holder(pool: rtpool.SharedPool, handle: Any, told: int) -> None:
    """In a forked child: hold arrays of the pool until killed."""
    try:
        array = handle.open()
        with rtpool.handler(pool):
            own = [Verified(50_000) for _ in range(5)]
        array[:1] = array[:1]
        for one in own:
            one.check()
        os.write(told, b"+")
        while True:
            time.sleep(60)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
