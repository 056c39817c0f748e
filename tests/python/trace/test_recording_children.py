"""Children of a recorded process: counted, and on request recorded to files of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import rtpool


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RTPOOL_")}
    return subprocess.run(
        [sys.executable, "-m", "rtpool", "run", "--quiet", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def in_child(work: object) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    return child


def functions(trace: rtpool.Trace) -> set[str]:
    return {usage.function.rpartition(".")[2] for usage in trace.by_line()}


def test_children_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with rtpool.handler(rtpool.Pool()), rtpool.record(path) as recording:
        child = in_child(lambda: np.ones(100))
    assert recording.report.forked == 1 and recording.report.complete
    assert "forked       1 children: not recorded" in recording.trace.summary()
    assert not (tmp_path / f"trace.{child}").exists()


def test_each_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    pool = rtpool.Pool(name="family")
    recording = rtpool.record(path, pool=pool, children=True)

    def in_the_child() -> None:
        for _ in range(5000):
            np.zeros(500)

    def grandchild() -> None:
        np.ones(77)
        recording.__exit__(None, None, None)

    def work() -> None:
        for _ in recording.iterations(range(3)):
            with recording.span("early"):
                in_the_child()
        in_child(grandchild)
        recording.__exit__(None, None, None)
        assert recording.report.forked == 1

    with rtpool.handler(pool), recording:
        inherited = np.ones(1234, np.uint8)
        with recording.span("early"):
            pass
        child = in_child(work)
        np.empty(10)
    own = rtpool.Trace.load(path)
    assert own.file.complete and "in_the_child" not in functions(own)
    assert "each in a file of its own" in own.summary()
    trace = rtpool.Trace.load(f"{path}.{child}")
    assert trace.file.complete and trace.iterations == 3 and trace.file.lost == 0
    assert functions(trace) >= {"in_the_child"}
    assert trace.file.spans == {1: "early"}
    assert trace.analysis.alive_before >= 1 and trace.file.meta["process"] == child
    others = sorted(p.name for p in tmp_path.iterdir())
    assert len(others) == 3
    del inherited


def test_children_need_a_path() -> None:
    with pytest.raises(ValueError, match="children=True needs a path"):
        rtpool.record(children=True)
    with pytest.raises(TypeError, match="children must be"):
        rtpool.record("x", children=1)


PROGRAM = """
import multiprocessing, sys
import numpy as np

def in_the_worker(number):
    return float(np.ones(1000 + number).sum())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    a = np.ones(10)
    workers = [context.Process(target=in_the_worker, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print([worker.pid for worker in workers], [worker.exitcode for worker in workers])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_recorded_program(tmp_path: Path, method: str) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    done = run("--children", "--record", "out.trace", "program.py", method, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pids, codes = map(json.loads, done.stdout.strip().replace("] [", "]\n[").splitlines())
    assert codes == [0, 0]
    assert rtpool.Trace.load(tmp_path / "out.trace").file.complete
    for pid in pids:
        trace = rtpool.Trace.load(tmp_path / f"out.trace.{pid}")
        assert trace.file.complete, f"the worker's recording was not ended: {done.stderr}"
        assert "in_the_worker" in functions(trace)


def test_without_children_a_program_s_forks_are_named(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    done = run("--record", "out.trace", "program.py", "fork", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "forked       2 children: not recorded" in rtpool.Trace.load(tmp_path / "out.trace").summary()
    assert [path.name for path in tmp_path.glob("out.trace*")] == ["out.trace"]
