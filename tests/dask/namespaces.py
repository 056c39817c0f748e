"""`dask worker --preload rtpool.dask` in network namespaces of their own: the plugin, its figures, handles.

    python tests/dask/namespaces.py [--record]

Needs root and `ip` (iproute2): a bridge with one namespace for the scheduler and one for each worker, as containers of
one machine have them. The client is in the scheduler's. What must hold: every worker is activated and reports; an
array of the shared pool goes between workers of two namespaces as a handle; a worker that is killed leaves nothing in
the pool.
`--record` writes results/namespaces.json. Exit code 0: all of it held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BRIDGE, NET = "rtpoolbr", "10.77.5"
NAMES = ("rtpool-s", "rtpool-a", "rtpool-b")


def ip(*words: str, may_fail: bool = False) -> None:
    subprocess.run(["ip", *words], check=not may_fail, capture_output=may_fail)


def make_network() -> None:
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    for number, name in enumerate(NAMES, start=1):
        ip("netns", "add", name)
        ip("link", "add", f"rtpool{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"rtpool{number}", "master", BRIDGE, "up")
        ip("-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")


def remove_network() -> None:
    for name in NAMES:
        ip("netns", "del", name, may_fail=True)
    ip("link", "del", BRIDGE, may_fail=True)


def start(name: str, *words: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"DASK_RTPOOL__SHARED": "64 MiB", "DASK_RTPOOL__IDLE": "1 s"}
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True)


def client() -> dict[str, Any]:
    """What the client sees; run in the scheduler's namespace."""
    import dask_tasks as tasks
    from distributed import Client

    import rtpool.dask

    told: dict[str, Any] = {}
    with Client(f"tcp://{NET}.1:8786") as client:
        client.wait_for_workers(2, timeout=60)
        here, there = sorted(client.scheduler_info()["workers"])
        told["workers"] = [here, there]
        told["activated"] = list(client.run(tasks.active).values())
        told["reporting"] = sorted(rtpool.dask.report(client)) == [here, there]
        made = client.submit(tasks.made_in_the_pool, 4 << 20, workers=[here], pure=False)
        told["as a handle"] = client.submit(tasks.look_at, made, workers=[there], pure=False).result()[2]
        ended = client.submit(tasks.end_hard, made, workers=[there], pure=False, retries=0)
        end = time.monotonic() + 60
        while there in client.scheduler_info()["workers"] and time.monotonic() < end:
            time.sleep(0.1)
        ended.cancel()
        del made, ended
        while (left := list(client.run(tasks.alive_in_the_pool).values())) != [0] * len(left):
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        told["left after the kill"] = sum(left)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parent / "python" / "dask"))
    if arguments.client:
        print(json.dumps(client()))
        return 0
    os.environ["PYTHONPATH"] = str(HERE.parent / "python" / "dask")
    processes = []
    try:
        remove_network()
        make_network()
        processes.append(start(NAMES[0], "dask_scheduler", "--host", f"{NET}.1", "--no-dashboard"))
        for number, name in enumerate(NAMES[1:], start=2):
            worker = ["--host", f"{NET}.{number}", "--nthreads", "1", "--memory-limit", "1GB", "--no-dashboard"]
            processes.append(start(name, "dask_worker", f"tcp://{NET}.1:8786", "--preload", "rtpool.dask", *worker))
        command = ["ip", "netns", "exec", NAMES[0], sys.executable, __file__, "--client"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode != 0:
            print(done.stderr[-3000:], file=sys.stderr)
            return 1
        told = json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # nannies, too, which would begin workers anew
            process.wait()
        remove_network()
    print(json.dumps(told, indent=1))
    held = all(told["activated"]) and told["reporting"] and told["as a handle"] and told["left after the kill"] == 0
    if arguments.record:
        result = {
            "command": "python tests/dask/namespaces.py --record",
            "date": time.strftime("%Y-%m-%d"),
            "held": held,
            **told,
        }
        (HERE / "results" / "namespaces.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
