"""rtpool in Dask, on a real cluster: activation, memory that goes back, figures, arrays that go as handles."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed")

import dask
import dask_tasks as tasks
from distributed import Client, LocalCluster, wait
from distributed.core import connect
from distributed.protocol import deserialize, serialize

import rtpool.dask
from rtpool.dask import transfer

HERE = Path(__file__).parent


def until(holds: Callable[[], bool], timeout: float = 120.0) -> None:
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, f"not so after {timeout:g} s: {inspect.getsource(holds).strip()}"
        time.sleep(0.1)  # between two looks


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """A cluster leaves what it sets for its workers (OPENBLAS_NUM_THREADS and more) in the process that starts it."""
    before = dict(os.environ)
    # The workers import what this module runs.
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{before.get('PYTHONPATH', '')}"
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def client(environment: None) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="2GB", dashboard_address=":0") as cluster,
        Client(cluster) as made,
    ):
        made.register_plugin(rtpool.dask.RtpoolPlugin(idle="400 ms", shared="64 MiB"))
        yield made


def workers(client: Client) -> list[str]:
    return list(client.scheduler_info()["workers"])


def test_workers_are_active_and_report(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(client.run(tasks.active).values())
    client.run(tasks.used_up, 40)
    until(lambda: all(figures["peak"] >= 40 << 20 for figures in rtpool.dask.report(client).values()))
    capsys.readouterr()
    report = rtpool.dask.report(client)
    assert set(report) == set(workers(client))
    printed = capsys.readouterr().out
    assert printed == f"{report}\n" and "together" in printed and len(printed.splitlines()) == 4
    # The scheduler has them from the heartbeats.
    until(lambda: all("rtpool" in told["metrics"] for told in client.scheduler_info()["workers"].values()))


def test_what_is_not_used_goes_back(client: Client) -> None:
    client.run(tasks.used_up, 100)
    figures: dict[str, dict[str, int]] = {}

    def given_back() -> bool:
        figures.update(rtpool.dask.report(client))
        return all(of_worker["given_back"] >= 80 << 20 for of_worker in figures.values())

    until(given_back)
    assert all(of_worker["used"] + of_worker["idle"] < 20 << 20 for of_worker in figures.values())


@pytest.mark.parametrize("make", [tasks.made_in_the_pool, tasks.made_anywhere])
def test_arrays_of_the_pool_go_as_handles_and_others_as_copies(client: Client, make: Any) -> None:
    here, there = workers(client)
    in_pool = make is tasks.made_in_the_pool
    made = client.submit(make, 4 << 20, workers=[here], pure=False)
    total, writeable, shared = client.submit(tasks.look_at, made, workers=[there], pure=False).result(60)
    assert total == 255 * 128 and shared == in_pool and not (writeable and in_pool)
    # The client is no worker with a part in the pool: it gets bytes.
    fetched = made.result(60)
    assert (fetched == np.arange(4 << 20, dtype=np.uint8)).all() and rtpool.owner(fetched) is None
    del made
    until(lambda: set(client.run(tasks.alive_in_the_pool).values()) == {0})


def test_a_killed_receiver_gives_its_hold_back(client: Client) -> None:
    here, there = workers(client)
    made = client.submit(tasks.made_in_the_pool, 8 << 20, workers=[here], pure=False)
    ended = client.submit(tasks.end_hard, made, workers=[there], pure=False, retries=0)
    until(lambda: there not in workers(client) and len(workers(client)) == 2)
    ended.cancel()
    assert made.result(60)[1] == 1
    del made, ended
    until(lambda: set(client.run(tasks.alive_in_the_pool).values()) == {0})


async def ask_and_end(address: str, key: str, who: str | None) -> None:
    """What a worker does that is killed when it has the data, before it has said so or opened what they stand for."""
    comm = await connect(address, deserialize=False)
    await comm.write({"op": "get_data", "keys": [key], "who": who, "reply": True})
    await comm.read()
    comm.abort()


@pytest.mark.parametrize("as_handle", [False, True])
def test_data_sent_to_a_worker_that_is_killed_are_let_go_of(client: Client, as_handle: bool) -> None:
    here, there = workers(client)
    client.run(tasks.wait_for_receivers, 1.0)  # instead of a minute
    made = client.submit(tasks.made_in_the_pool, 4 << 20, workers=[here], pure=False)
    wait(made, timeout=60)
    client.sync(ask_and_end, here, made.key, there if as_handle else None)
    until(lambda: any("failed during get data" in text for _, text in client.get_worker_logs(workers=[here])[here]))
    del made
    until(lambda: set(client.run(tasks.alive_in_the_pool).values()) == {0})
    # What the log says of it is all there.
    assert any("Traceback" in text and "get_data" in text for _, text in client.get_worker_logs(workers=[here])[here])


FIRST_TRANSFER = """
import os, sys, types
import numpy as np
import rtpool
from rtpool.dask import transfer

worker = types.SimpleNamespace(
    address="tcp://here", scheduler=types.SimpleNamespace(address=f"tcp://{sys.argv[1]}"), handlers={"get_data": None}
)

def mapped():
    file = os.stat(f"/dev/shm/rtpool.{one.pool.name}").st_ino
    with open("/proc/self/maps") as maps:
        return sum(int(line.split()[4]) == file for line in maps)

one = transfer.Transfer(worker, 64 << 20)
assert one.pool.stats().current_count == 0
with rtpool.handler(one.pool):
    array = np.ones(1 << 20)
transfer._asking.set("tcp://here")
assert mapped() > 1
before = mapped(), len(sys.modules), one.pool.stats().kernel_calls
header, frames = transfer._serialize(array, context={})
assert transfer.HEADER in header
opened = transfer._deserialize(header, frames)
assert (mapped(), len(sys.modules), one.pool.stats().kernel_calls) == before
assert opened.sum() == 1 << 20 and not np.shares_memory(opened, array)
del array, opened
one.close()
"""


def test_the_first_transfer_finds_everything_there() -> None:
    """No memory to be mapped and no module to be imported, which made it three times as long as those after it."""
    subprocess.run([sys.executable, "-c", FIRST_TRANSFER, str(os.getpid())], check=True, timeout=120)


def test_a_handle_that_was_given_up_is_a_transfer_cut_short(shared_pool: rtpool.SharedPool) -> None:
    with rtpool.handler(shared_pool):
        sent = bytes(ForkingPickler.dumps(shared_pool.share(np.arange(100_000))))
    assert shared_pool.reclaim(0) == 1
    with pytest.raises(EOFError, match="is gone"):
        transfer._deserialize({transfer.HEADER: True}, [sent])


def test_what_is_spilled_is_a_copy(shared_pool: rtpool.SharedPool) -> None:
    transfer._register()
    with rtpool.handler(shared_pool):
        array = np.arange(100_000)
    header, frames = serialize(array)  # as for the disk, with nobody asking
    assert transfer.HEADER not in header["sub-header"]
    again = deserialize(header, [bytes(frame) for frame in frames])
    assert (again == array).all() and again not in shared_pool


def test_the_dashboard_has_a_page(client: Client) -> None:
    pytest.importorskip("bokeh")
    client.register_plugin(rtpool.dask.RtpoolPanel())
    page = client.dashboard_link.replace("/status", "/rtpool")
    assert b"Dask: rtpool" in urllib.request.urlopen(page, timeout=60).read()


def test_preload_and_pre_spawn_environ() -> None:
    configuration = {
        "distributed.worker.preload": ["rtpool.dask"],
        "distributed.nanny.pre-spawn-environ.RTPOOL_ACTIVATE": "arrays",
        "rtpool.idle": "1 s",
    }
    with (
        dask.config.set(configuration),
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="1GB", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Active since NumPy was imported: the pool is the default one, and the plugin keeps it.
        names = client.run(lambda: __import__("rtpool").active_pool().name)
        assert list(names.values()) == ["default"]
        assert list(rtpool.dask.report(client)) == workers(client)
        future = client.submit(sum, [1, 2])
        wait(future, timeout=60)
        assert future.result(60) == 3


@pytest.mark.parametrize("wrong", [{"limit": "much"}, {"idle": "soon"}, {"pressure": 2}, {"shared": "x"}])
def test_wrong_options_are_told_before_they_travel(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        rtpool.dask.RtpoolPlugin(**wrong)
