"""Chunked array work on a Dask cluster, with the workers' memory from several allocators.

    python bench/dask_cluster.py [--record]

Each contestant is a `LocalCluster` of its own (one worker a core, one thread), in turns and in alternating order,
`--rounds` times; `--only` leaves others out. A case is a work on arrays of `--bytes` in chunks of one size:
`temporaries` (element by element), `overlap`, `rechunk`, `reduce` (standard deviation over an axis), `store` (into a
sink that copies). Of each: seconds (median, least and most of the rounds), how many times as fast as Dask as it is (the
median of the ratios within the rounds, and their least and most), page faults of the workers. Of each cluster:
unmanaged memory of the workers 5 s after the work, the most of any round, spilled bytes, pauses. Last, an array of
1 GiB goes from worker to worker, as it is and as a handle of a shared pool: seconds by Dask's own log of transfers.
`--record` writes results/dask.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from contestants import everyone
from dask import config
from distributed import Client, LocalCluster

import rtpool
import rtpool.dask

RESULTS = Path(__file__).resolve().parent / "results" / "dask.json"
MIB = 1 << 20
CHUNKS = (1, 8, 64)
CASES = ("temporaries", "overlap", "rechunk", "reduce", "store")


class Sink:
    """Takes what is stored, as a file would: by copying it once."""

    def __setitem__(self, key: Any, value: Any) -> None:
        np.array(value)


def make(case: str, size: int, chunk: int) -> Any:
    """The work, to be computed."""
    side = int((chunk / 8) ** 0.5)
    rows = max(size // 8 // side // side, 1)
    x = da.full((rows * side, side), 2.0, chunks=(side, side))
    if case == "temporaries":
        return (da.sqrt(x * 2 + 1) - x / 3 + x * x).sum()
    if case == "overlap":
        return da.map_overlap(lambda b: b - np.roll(b, 1, 0) + np.roll(b, -1, 0), x, depth=1, boundary="reflect").sum()
    if case == "rechunk":
        return (x.rechunk((side * 2, max(side // 2, 1))) + 1).sum()
    if case == "reduce":
        return x.std(axis=0).sum()
    return da.store(x + 1, Sink(), compute=False, lock=False)


def faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def unmanaged(dask_scheduler: Any) -> list[int]:
    return [worker.memory.process - worker.memory.managed for worker in dask_scheduler.workers.values()]


def spilled(dask_scheduler: Any) -> int:
    return sum(worker.memory.spilled for worker in dask_scheduler.workers.values())


def contestants() -> dict[str, dict[str, Any]]:
    """Their environments; `plugin` by the plugin."""
    preloads = {
        one.name: one.environment for one in everyone() if one.name in ("jemalloc", "mimalloc") and not one.missing
    }
    default = {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as distributed sets it
    return {
        "dask": {},
        "MALLOC_TRIM_THRESHOLD_ unset": {"MALLOC_TRIM_THRESHOLD_": None},
        **{name: default | environment for name, environment in preloads.items()},
        "RtpoolPlugin": {},
    }


def one_cluster(name: str, environment: dict[str, Any], size: int, memory: str) -> dict[str, Any]:
    told: dict[str, Any] = {"cases": {}}
    settings = {f"distributed.nanny.pre-spawn-environ.{key}": value for key, value in environment.items()}
    with (
        config.set(settings),
        LocalCluster(
            n_workers=os.cpu_count(), threads_per_worker=1, memory_limit=memory, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        if name == "RtpoolPlugin":
            client.register_plugin(rtpool.dask.RtpoolPlugin())
        client.compute(make("temporaries", 64 * MIB, MIB)).result()  # imports
        most_spilled = 0
        for chunk in CHUNKS:
            for case in CASES:
                work = make(case, size, chunk * MIB)
                before = sum(client.run(faults).values())
                start = time.perf_counter()
                client.compute(work).result()
                seconds = time.perf_counter() - start
                told["cases"][f"{case}:{chunk}MiB"] = [seconds, sum(client.run(faults).values()) - before]
                most_spilled = max(most_spilled, client.run_on_scheduler(spilled))
        time.sleep(5)  # what is measured is what is left then
        told["unmanaged_mib"] = [round(each / MIB, 1) for each in client.run_on_scheduler(unmanaged)]
        told["spilled_bytes"] = most_spilled
        logs = [line for lines in client.get_worker_logs().values() for _, line in lines]
        told["pauses"] = sum("Pausing worker" in line for line in logs)
    return told


def in_shared_memory(size: int) -> Any:
    with rtpool.handler(rtpool.dask.shared_pool()):
        return np.ones(size, np.uint8)


def alive_in_shared_memory() -> int:
    return int(rtpool.dask.shared_pool().stats().current_count)


def transfers(shared: bool, size: int = 1 << 30, times: int = 9) -> list[float]:
    """Seconds that one array takes from worker to worker."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="6GB", dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(rtpool.dask.RtpoolPlugin(shared="1100 MiB" if shared else None))
        here, there = client.scheduler_info()["workers"]
        for _ in range(times):
            work = in_shared_memory if shared else np.ones
            made = client.submit(work, size, **({} if shared else {"dtype": np.uint8}), workers=[here], pure=False)
            client.submit(len, made, workers=[there], pure=False).result()
            del made
            # Each has let go of it, or the next one finds the pool full and is an ordinary array.
            while shared and any(client.run(alive_in_shared_memory).values()):
                time.sleep(0.05)
        logs = client.run(lambda dask_worker: list(dask_worker.transfer_incoming_log))[there]
    return [round(one["stop"] - one["start"], 4) for one in logs if one["total"] >= size]


def figures(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", default="2GB", help="of a worker (default 2GB)")
    parser.add_argument("--only", nargs="+", metavar="CONTESTANT", help="beside Dask as it is")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    chosen = {
        name: environment
        for name, environment in contestants().items()
        if not arguments.only or name == "dask" or name in arguments.only
    }
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for turn in range(arguments.rounds):
        for name, environment in list(chosen.items())[:: 1 if turn % 2 == 0 else -1]:
            turns[name].append(one_cluster(name, environment, arguments.bytes, arguments.memory))
            print(name, turns[name][-1]["unmanaged_mib"], flush=True)
    result: dict[str, Any] = {
        "command": f"bench/dask_cluster.py --bytes {arguments.bytes} --rounds {arguments.rounds}",
        "machine": {"cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "dask": dask.__version__,
                     "rtpool": rtpool.__version__},
        "contestants": {},
    }  # fmt: skip
    for name, rounds in turns.items():
        cases = {}
        for case in rounds[0]["cases"]:
            ratios = [
                base["cases"][case][0] / one["cases"][case][0] for base, one in zip(turns["dask"], rounds, strict=True)
            ]
            cases[case] = {
                "seconds": figures([one["cases"][case][0] for one in rounds]),
                "times_dask": figures(ratios),
                "faults": round(statistics.median(one["cases"][case][1] for one in rounds)),
            }
        result["contestants"][name] = {
            "cases": cases,
            "unmanaged_mib": max(max(one["unmanaged_mib"]) for one in rounds),
            "spilled_bytes": max(one["spilled_bytes"] for one in rounds),
            "pauses": max(one["pauses"] for one in rounds),
        }
    result["transfer_of_1_gib_s"] = {"as it is": transfers(False, times=3), "as a handle": transfers(True)}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.record:
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
