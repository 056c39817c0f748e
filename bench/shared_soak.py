"""Random kills of processes that share a pool: what `bench/shared.py --soak SECONDS` runs, and a test for seconds."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
import zlib
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import rtpool

CONTEXT = multiprocessing.get_context("spawn")


def checked(size: int, random_bytes: random.Random) -> Any:
    """A frame whose first four bytes are the check sum of the rest."""
    frame = np.empty(size, np.uint8)
    frame[4:] = np.frombuffer(random_bytes.randbytes(256) * (size // 256 + 1), np.uint8)[: size - 4]
    frame[:4].view(np.uint32)[0] = zlib.crc32(frame[4:])
    return frame


def produce(pool: rtpool.SharedPool, pipe: Connection, seed: int) -> None:
    source = random.Random(seed)
    kept: list[Any] = []
    under_way = 0
    with rtpool.handler(pool):
        while True:
            try:
                frame = checked(source.choice([100, 5_000, 300_000, 2_000_000]), source)
                pipe.send(pool.share(frame))
                under_way += 1
                while under_way > 4 or pipe.poll():
                    pipe.recv()
                    under_way -= 1
            except MemoryError:  # of handles whose receivers were killed, until they are given up
                time.sleep(0.01)
                continue
            except (EOFError, OSError):
                return
            kept.append(frame)
            if len(kept) > 4:
                for old in kept:
                    if zlib.crc32(old[4:]) != old[:4].view(np.uint32)[0]:
                        os._exit(66)
                kept.clear()


def consume(pool: rtpool.SharedPool, pipe: Connection, count: Any) -> None:
    while True:
        try:
            handle = pipe.recv()
            pipe.send(None)
            frame = handle.open(writeable=False)
        except LookupError:
            continue  # given up while under way
        except (EOFError, OSError):
            return
        if zlib.crc32(frame[4:]) != frame[:4].view(np.uint32)[0]:
            os._exit(66)
        count.value += 1


def soak(seconds: float, least_kills: int = 1) -> dict[str, Any]:
    """Two producers, two consumers, one of them killed every few tens of milliseconds, for so long and so often."""
    name = f"soak.{os.getpid()}"
    pool = rtpool.SharedPool.create("256 MiB", name=name)
    witness_source = random.Random(1)
    with rtpool.handler(pool):
        witness = [checked(size, witness_source) for size in (100, 5_000, 1_000_000)]
    counts = [CONTEXT.RawValue("L", 0) for _ in range(2)]
    pairs: list[list[Any]] = [[], []]
    fork = multiprocessing.get_context("fork")
    seeds = itertools.count()

    def start_pair(i: int) -> None:
        receive, send = fork.Pipe()
        pairs[i] = [
            fork.Process(target=produce, args=(pool, send, next(seeds))),
            fork.Process(target=consume, args=(pool, receive, counts[i])),
        ]
        for process in pairs[i]:
            process.start()
        receive.close()
        send.close()

    kills = {"producers": 0, "consumers": 0}
    damaged = 0
    lost = 0
    for i in range(2):
        start_pair(i)
    end = time.monotonic() + seconds
    source = random.Random(os.getpid())
    while time.monotonic() < end or sum(kills.values()) < least_kills:
        time.sleep(source.random() * 0.1)
        i, role = source.randrange(2), source.randrange(2)
        victim = pairs[i][role]
        victim.kill()
        kills["consumers" if role else "producers"] += 1
        for process in pairs[i]:
            if process is not victim:
                process.join(0.01)  # it finds the pipe broken, or is killed with its partner
                if process.is_alive():
                    process.kill()
                    kills["producers" if role else "consumers"] += 1
            process.join()
            damaged += process.exitcode == 66
        start_pair(i)
        lost += pool.reclaim(2)
    for process in itertools.chain(*pairs):
        process.kill()
        process.join()
        damaged += process.exitcode == 66
    intact = all(zlib.crc32(w[4:]) == w[:4].view(np.uint32)[0] for w in witness)
    witness.clear()
    start = time.monotonic()
    while True:
        lost += pool.reclaim(0)
        pool.check()
        pool.trim()
        stats = pool.stats()
        # A process killed between its fork and its first instruction is given 10 s to appear.
        if stats.current_count == 0 or time.monotonic() > start + 15:
            break
        time.sleep(0.1)
    pool.unlink()
    pool.close()
    return {
        "seconds": seconds,
        "kills": kills,
        "frames checked by consumers": sum(c.value for c in counts),
        "damaged frames": damaged,
        "the survivor's arrays intact": intact,
        "handles given up with their receivers": lost,
        "blocks left": stats.current_count,
        "seconds until all was recovered": round(time.monotonic() - start, 1),
        "largest free run": [stats.largest_free_bytes, stats.capacity_bytes],
        "left in /dev/shm": [file for file in os.listdir("/dev/shm") if name in file],
        "processes recovered": stats.recovered_processes,
    }


def is_clean(result: dict[str, Any]) -> bool:
    """Nothing damaged, nothing lost, nothing left."""
    left = result["damaged frames"] or result["blocks left"] or result["left in /dev/shm"]
    return not left and result["the survivor's arrays intact"] and len(set(result["largest free run"])) == 1
