"""Running processes that show themselves, and the command `top`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waits import LIMIT

import rtpool
from rtpool import _core
from rtpool._live import page, processes, render

# A process that does what it is told, a line at a time, and says when that is done.
CHILD = """
import os, sys
import numpy as np
import rtpool
pool = rtpool.Pool("8 MiB", name="eyes")
kept = []
print(os.getpid(), flush=True)
for line in sys.stdin:
    with rtpool.handler(pool):
        exec(line)
    print("done", flush=True)
"""


class Child:
    def __init__(self, code: str = CHILD, command: tuple[str, ...] = (), **environment: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", textwrap.dedent(code)],
            env={**inherited, "RTPOOL_LIVE": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        self._limit = threading.Timer(LIMIT, self.kill)
        self._limit.daemon = True
        self._limit.start()
        self.number = int(self.read())

    def kill(self) -> None:
        """With what it forked: while one of these has its standard output open, the reading does not end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line or self._limit.is_alive(), f"the child said nothing more in {LIMIT:g} s"
        return line

    def do(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        told = ""
        while (one := self.read()) not in ("done\n", ""):
            told += one
        return told

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def leave(self) -> None:
        """Whatever it does just now."""
        self._limit.cancel()
        self.kill()
        self.end()


@contextlib.contextmanager
def child(code: str = CHILD, command: tuple[str, ...] = (), **environment: str) -> Iterator[Child]:
    made = Child(code, command, **environment)
    try:
        yield made
    finally:
        made.leave()


@contextlib.contextmanager
def watched(process: int) -> Iterator[processes.Watched]:
    made = processes.Watched(process)
    try:
        yield made
    finally:
        made.close()


def top(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtpool", "top", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


def eyes(snapshot: processes.Snapshot) -> page.PoolFigures:
    assert snapshot.page is not None
    return next(pool for pool in snapshot.page.pools if pool.name == "eyes")


def test_the_figures_are_those_of_the_process() -> None:
    with child() as one, watched(one.process.pid) as process:
        told = one.do("kept.append(np.ones(1000)); pool.freeze(); print(*pool.stats())")
        snapshot = process.look()
        assert snapshot.answered and snapshot.process == one.process.pid
        pool = eyes(snapshot)
        expected = dict(zip(_core.STATS_FIELDS, map(int, told.split()), strict=True))
        assert pool.stats == expected
        assert tuple(sorted(page.FIELDS)) == tuple(sorted(_core.STATS_FIELDS))
        assert pool.frozen and not pool.shared and not pool.debug
        one.do("pool.unfreeze(); kept.append(np.empty(2000))")
        later = eyes(process.look())
        assert later.stats["total_count"] == pool.stats["total_count"] + 1
        assert not later.frozen


def test_nothing_wakes_while_nobody_looks() -> None:
    with child() as one:
        one.do("pass")
        tasks = Path(f"/proc/{one.process.pid}/task")

        def switches() -> dict[str, str]:
            found = {}
            for task in tasks.iterdir():
                lines = (task / "status").read_text().splitlines()
                while not any(line.startswith("State:\tS") for line in lines):  # it goes to sleep just now
                    lines = (task / "status").read_text().splitlines()
                found[task.name] = next(line for line in lines if line.startswith("voluntary_ctxt"))
            return found

        before = switches()
        assert len(before) == 2  # the program's and the one that answers
        with watched(one.process.pid) as process:
            process.look()
        looked = switches()
        (helper,) = set(before) - {str(one.process.pid)}
        assert int(looked[helper].split()[-1]) > int(before[helper].split()[-1])
        # Whatever passes, until the program does something: no thread has run.
        subprocess.run([sys.executable, "-c", "pass"], timeout=60, check=True)
        assert switches() == looked


def test_sections_and_their_last_overrun() -> None:
    code = """
        import os, sys, time
        import numpy as np
        import rtpool
        pool = rtpool.Pool("4 MiB", name="loop")
        print(os.getpid(), flush=True)
        with rtpool.realtime("5 ms", pool=pool, objects="keep", malloc="keep") as section:
            for tick in section:
                if tick.index == 3:
                    time.sleep(0.02)
                if tick.index == 10:
                    print("there", flush=True)
                    sys.stdin.readline()
                    section.stop()
        print("over", flush=True)
        sys.stdin.readline()
    """
    with child(code) as one, watched(one.process.pid) as process:
        assert one.read() == "there\n"
        snapshot = process.look()
        assert snapshot.page is not None
        (section,) = snapshot.page.sections
        assert section.period == 5_000_000
        assert section.iterations == 10 and section.overruns >= 1
        assert section.last_index >= 3 and section.last_duration >= 0
        assert section.thread == one.process.pid
        assert any(pool.name == "loop" and pool.frozen for pool in snapshot.page.pools)
        assert "every 5 ms, 10 iterations" in render.text([render.View(snapshot, None)])
        one.process.stdin.write("\n")  # type: ignore[union-attr]
        assert one.read() == "over\n"
        snapshot = process.look()
        assert snapshot.page is not None and snapshot.page.sections == []


def test_shared_pools_are_there() -> None:
    with child() as one, watched(one.process.pid) as process:
        one.do("shared = rtpool.SharedPool.create('4 MiB', name=f'live-{os.getpid()}')")
        one.do("kept.append(shared)")
        snapshot = process.look()
        assert snapshot.page is not None
        assert [pool.shared for pool in snapshot.page.pools if pool.name == f"live-{one.number}"] == [True]
        one.do("shared.unlink()")


def test_forked_children_show_themselves() -> None:
    with child() as one:
        one.do("go, let_go = os.pipe(); forked, has_forked = os.pipe()")
        # The child says when its fork is over: until then it has its parent's page.
        one.do("n = os.fork(); (n or (os.write(has_forked, b'x'), os.read(go, 1), os._exit(0)))")
        told = one.do("os.read(forked, 1); print(n)")
        number = int(told)
        assert number in processes.find()[0]
        with watched(number) as process, watched(one.process.pid) as parent:
            snapshot = process.look()
            assert snapshot.answered and snapshot.page is not None and snapshot.page.process == number
            assert eyes(snapshot).name == "eyes"
            assert parent.look().answered
        one.do("os.write(let_go, b'x'); os.waitpid(n, 0)")
        with pytest.raises(processes.NotShown, match="there is no process"):
            processes.Watched(number)


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(tmp_path: Path, how: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, sys
            import rtpool

            def work(there, go):
                import os
                there.put(os.getpid())
                go.get(timeout=60)

            if __name__ == "__main__":
                context = multiprocessing.get_context("{how}")
                there, go = context.Queue(), context.Queue()
                process = context.Process(target=work, args=(there, go))
                process.start()
                print(there.get(timeout=60), flush=True)
                sys.stdin.readline()
                go.put(1)
                process.join(60)
            """
        )
    )
    with subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "RTPOOL_LIVE": "1"}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        number = int(program.stdout.readline())
        try:
            with watched(number) as process:
                assert process.look().answered
        finally:
            program.communicate("\n", timeout=60)


def test_a_killed_process_leaves_nothing() -> None:
    """What it shows has no name anywhere: it is gone with the last who has it open."""
    with child() as one, watched(one.process.pid) as process:
        assert process.look().answered
        folder = Path("/proc", str(one.process.pid))
        opened = {os.readlink(file) for file in (folder / "fd").iterdir()}
        opened |= set(re.findall(r"\s(/\S.*)$", (folder / "maps").read_text(), re.MULTILINE))
        assert any("memfd:" in path for path in opened)
        assert not [path for path in opened if path.startswith("/dev/shm/")], opened
        one.process.kill()
        one.process.wait(timeout=60)
        with pytest.raises(ProcessLookupError):
            process.look()
    with pytest.raises(processes.NotShown, match="there is no process"):
        processes.Watched(one.number)


def test_a_stopped_process_does_not_answer_and_is_shown_as_it_was() -> None:
    with child() as one, watched(one.process.pid) as process:
        one.do("kept.append(np.ones(1000))")
        assert process.look().answered
        os.kill(one.process.pid, signal.SIGSTOP)
        os.waitpid(one.process.pid, os.WUNTRACED)  # all of its threads
        try:
            snapshot = process.look(timeout=0.1)
            assert not snapshot.answered and eyes(snapshot).name == "eyes"
            assert "does not answer" in render.text([render.View(snapshot, None)])
        finally:
            os.kill(one.process.pid, signal.SIGCONT)
        assert process.look().answered


def test_processes_that_are_not_shown_are_named() -> None:
    with child(RTPOOL_LIVE="0") as one:
        assert "start it with RTPOOL_LIVE=1" in top(one.process.pid, status=1).stderr
        assert one.process.pid not in processes.find()[0]
    assert "there is no process" in top(one.process.pid, "--once", status=1).stderr
    assert "--interval" in top("--interval", "0", status=2).stderr


def test_a_wrong_value_is_a_warning() -> None:
    code = """
        import warnings
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            import rtpool
        print(1)
        print(told[0].message)
    """
    with child(code, RTPOOL_LIVE="perhaps") as one:
        assert "RTPOOL_LIVE must be 1 or 0, not 'perhaps'" in one.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_users_process_is_a_clear_error(run_python: Any) -> None:
    with child() as one:
        code = f"""
            import os, pwd
            from rtpool._live import processes  # before: another user may not read where it is installed
            os.setgid(65534)
            os.setuid(65534)
            try:
                processes.Watched({one.process.pid})
            except processes.NotShown as error:
                print(error)
            assert {one.process.pid} not in processes.find()[0] and processes.find()[1] > 0
        """
        told = run_python(code).stdout
        assert told == f"process {one.process.pid} belongs to root: run this as root to look at it\n"


def test_a_name_space_of_its_own() -> None:
    command = ("unshare", "--pid", "--fork", "--mount-proc")
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, timeout=60, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("unshare may not make a name space of processes here")
    with child(command=command) as one:
        assert one.number != one.process.pid  # as it knows itself
        inside = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
        with watched(int(inside[0])) as process:
            snapshot = process.look()
            assert snapshot.answered and snapshot.page is not None
            assert snapshot.page.process == one.number
        os.kill(int(inside[0]), signal.SIGKILL)


def test_top_prints_text_and_json() -> None:
    with child() as one:
        one.do("kept.append(np.ones(1000))")
        told = top(one.process.pid, "--once", "--interval", "0").stdout
        assert f"{one.process.pid}  " in told and "eyes" in told and "kernel calls" in told
        told = top("--once", "--interval", "10ms", "--json").stdout
        found = next(entry for entry in json.loads(told)["processes"] if entry["process"] == one.process.pid)
        pool = next(entry for entry in found["pools"] if entry["name"] == "eyes")
        assert pool["rates"]["total_count"] == 0 and pool["stats"]["total_count"] >= 1
        assert found["answered"] and found["resident_bytes"] > 0


def test_top_goes_on_until_the_process_ends() -> None:
    with child() as one:
        command = [sys.executable, "-m", "rtpool", "top", str(one.process.pid), "--interval", "10ms", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for _ in range(3):
                assert json.loads(running.stdout.readline())["processes"][0]["answered"]
            one.process.kill()
            one.process.wait(timeout=60)
            _, said = running.communicate(timeout=60)
            assert running.returncode == 1 and "has ended" in said


def test_a_screen_draws_it() -> None:
    pytest.importorskip("rich")
    from rich.console import Console

    from rtpool._live import screen

    with child() as one, watched(one.process.pid) as process:
        one.do("kept.append(np.ones(1000))")
        views = [render.View(process.look(), None)]
        console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(screen.picture(views, 3))
        told = console.export_text()
        assert "eyes" in told and "3 processes of others" in told
        console.print(screen.picture([], 0))
        assert "no process shows itself" in console.export_text()


# What a hostile process may show.


def honest() -> bytes:
    with child() as one, watched(one.process.pid) as process:
        process.look()
        return os.pread(process._file, page.MOST_BYTES, 0)


def test_hostile_pages_are_errors_or_figures() -> None:
    data = honest()
    assert page.parse(data).pools
    rng = np.random.default_rng(7)
    for length in (0, 1, 63, 64, 65, len(data) - 1):
        with pytest.raises(page.PageError):
            page.parse(data[:length])
    for _ in range(3000):
        broken = bytearray(data)
        for at in rng.integers(0, 200 if rng.random() < 0.7 else len(data), rng.integers(1, 9)):
            broken[at] = rng.integers(0, 256)
        try:
            told = page.parse(bytes(broken))
        except page.PageError:
            continue
        kernel = processes.Kernel("x", 0, 1, 1, 1, 1)
        view = render.View(processes.Snapshot(1, 1.0, kernel, told, True), None)
        render.text([view])
        json.dumps(render.as_dict(view))


def test_names_do_not_steer_a_terminal() -> None:
    data = bytearray(honest())
    data[page.HEAD.size : page.HEAD.size + 12] = b"\x1b]0;evil\x07\n\xff\0"
    assert page.parse(bytes(data)).pools[0].name == "?]0;evil??\ufffd"


LIAR = """
import mmap, os, sys
file = os.memfd_create("rtpool-live")
{write}
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "write",
    [
        "pass",
        "os.ftruncate(file, 100)",
        "os.pwrite(file, b'rtpool\\0\\1', 0); os.ftruncate(file, 24)",
        "os.pwrite(file, HEAD % os.getpid(), 0)",
        "os.pwrite(file, b'rtpool\\0\\1' + b'\\xff' * 5000, 0)",
    ],
)
def test_processes_that_lie_do_no_harm(write: str) -> None:
    head = struct.pack("<8sIIIII", page.MAGIC, page.VERSION, 1 << 19, 0, 0, 1)
    code = LIAR.format(
        write=write.replace("HEAD % os.getpid()", f"{head!r} + os.getpid().to_bytes(4, 'little') + bytes(99)")
    )
    with child(code) as one:
        try:
            with watched(one.process.pid) as process:
                assert not process.look(timeout=0.05).answered
        except processes.NotShown as error:
            assert "cannot be read" in str(error)


def test_stats_of_this_process_through_its_own_page() -> None:
    """In the process itself, twice: once started it stays."""
    code = """
        import rtpool
        from rtpool import _core
        from rtpool._live import processes
        import os
        _core._live_start(); _core._live_start(); _core._live_restart_in_child()
        watched = processes.Watched(os.getpid())
        print(os.getpid())
        print(watched.look().answered)
    """
    with child(code) as one:
        assert one.read() == "True\n"


def test_every_stat_is_in_the_page() -> None:
    assert len(page.FIELDS) == len(rtpool.Stats._fields)
