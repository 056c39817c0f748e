"""Traces done again: the script of a trace, and the command `replay`."""

from __future__ import annotations

import gzip
import json
import mmap
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from waits import joined

import rtpool
from rtpool import _core
from rtpool._replay import compare, peers, script, watch
from rtpool._trace import events as recorded

TRACES = Path(__file__).parents[3] / "bench" / "traces"


def replay(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtpool", "replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


def record(path: Path, work: Any) -> None:
    pool = rtpool.Pool("32 MiB")
    with rtpool.handler(pool), rtpool.record(path, pool=pool):
        work()


def loop() -> None:
    for _ in range(50):
        a = np.zeros(100_000)
        b = a + 1.0
        (b * 2.0).sum()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "loop.trace"
    record(path, loop)
    return path


def rows(made: script.Script) -> list[tuple[int, int, int, int, int]]:
    """(order, thread, operation, slot, size) in recorded order."""
    found = []
    for thread in range(made.threads):
        for row in range(int(made.begins[thread]), int(made.begins[thread + 1])):
            what = int(made.what[row])
            found.append((int(made.order[row]), thread, what & 7, int(made.slot[row]), what >> 3))
    return sorted(found)


def check(made: script.Script) -> None:
    """Every slot's operations alternate, and their turns count up."""
    live: dict[int, bool] = defaultdict(bool)
    turns: dict[int, int] = defaultdict(int)
    turn_of = {int(order): int(turn) for order, turn in zip(made.order, made.turn, strict=True)}
    alive = peak = 0
    sizes: dict[int, int] = {}
    for order, _, operation, slot, size in rows(made):
        makes = operation in (script.ALLOCATION, script.ZEROED_ALLOCATION, script.RESIZE_TO)
        assert live[slot] != makes, (order, operation, slot)
        assert turn_of[order] == turns[slot]
        turns[slot] += 1
        live[slot] = makes
        alive += size if makes else -sizes[slot]
        sizes[slot] = size
        peak = max(peak, alive)
    assert peak == made.peak_bytes
    for thread in range(made.threads):
        own = made.order[int(made.begins[thread]) : int(made.begins[thread + 1])]
        assert (np.diff(own.astype(np.int64)) > 0).all()


def test_a_loop_becomes_its_sizes(path: Path) -> None:
    made = script.script_of(rtpool.Trace.load(path).file)
    check(made)
    assert made.threads == made.recorded_threads == 1
    assert made.unmatched == 0
    sizes = [size for _, _, operation, _, size in rows(made) if operation == script.ZEROED_ALLOCATION]
    assert sizes == [800_000] * 50
    assert 1_600_000 <= made.peak_bytes <= 2_500_000


@pytest.mark.parametrize("packed", sorted(TRACES.glob("*.trace.gz")), ids=lambda path: path.name.partition(".")[0])
def test_traces_of_the_benchmark_are_whole(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.trace"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    trace = rtpool.Trace.load(path)
    assert trace.file.complete and trace.iterations >= 2 and not trace.file.places
    made = script.script_of(trace.file)
    check(made)
    assert made.unmatched == 0 and 100 < made.operations < 10_000
    # What a trace says of where it was made belongs to no machine.
    assert trace.file.meta["directory"] == "/" and trace.file.meta["arguments"] == ["bench/replay.py"]


def test_reallocs_are_pairs(tmp_path: Path) -> None:
    def work() -> None:
        a = np.empty(1000, np.uint8)
        for size in (2000, 500_000, 100, 3_000_000):
            a.resize(size, refcheck=False)

    record(tmp_path / "resize.trace", work)
    made = script.script_of(rtpool.Trace.load(tmp_path / "resize.trace").file)
    check(made)
    operations = [operation for _, _, operation, _, _ in rows(made)]
    assert operations == [
        script.ALLOCATION, *[script.RESIZE_FROM, script.RESIZE_TO] * 4, script.RELEASE
    ]  # fmt: skip


def test_threads_that_follow_each_other_share_one(tmp_path: Path) -> None:
    handed: list[Any] = []

    def work() -> None:
        def make() -> None:
            with rtpool.handler(pool):
                handed.append(np.ones(5000))

        for _ in range(6):
            thread = threading.Thread(target=make)
            thread.start()
            joined(thread)
            handed.clear()  # freed by another thread than made it

    pool = rtpool.Pool("8 MiB")
    with rtpool.record(tmp_path / "threads.trace", pool=pool):
        work()
    made = script.script_of(rtpool.Trace.load(tmp_path / "threads.trace").file)
    check(made)
    assert made.recorded_threads == 7
    assert made.threads == 2
    figures = json.loads(replay(tmp_path / "threads.trace", "--json", "--rounds", 1).stdout)
    assert figures["contestants"]["rtpool"]["last"]["failures"] == 0


def events(*told: tuple[int, int, int, int]) -> recorded.Events:
    """(kind, address, size, thread), a unit of time each."""
    kind, address, size, thread = zip(*told, strict=True)
    return recorded.Events(
        np.arange(len(told), dtype=np.int64),
        np.array(kind, np.uint8),
        np.zeros(len(told), np.uint32),
        np.array(address, np.uint64),
        np.array(size, np.int64),
        np.array(thread, np.uint32),
    )


def written(*windows: recorded.Events) -> script.Script:
    writer = script._Writer()
    for window in windows:
        writer.add(window)
    return writer.finish()


MADE, GONE = recorded.ALLOCATE, recorded.FREE
RESIZED = recorded.RESIZE


def test_blocks_that_are_not_whole_in_the_trace_harm_nothing() -> None:
    made = written(
        events((GONE, 1, 0, 0), (MADE, 1, 100, 0), (MADE, 1, 200, 1), (GONE, 2, 0, 1)),
        events((MADE, 1, 300, 0), (GONE, 1, 0, 1), (GONE, 1, 0, 1), (recorded.ALIVE, 3, 50, 0)),
    )
    check(made)
    assert made.unmatched == 5  # three frees of nothing, two blocks that were never freed
    assert made.allocations == 4


def test_a_failed_request_is_left_out() -> None:
    made = written(events((MADE | recorded.FAILED << 2, 0, 1 << 40, 0), (MADE, 1, 10, 0)))
    assert made.operations == 1 and made.peak_bytes == 10


def test_a_moved_realloc_is_told_backwards() -> None:
    """The new block is there before the old one goes."""
    made = written(events((MADE, 1, 10, 0), (MADE | RESIZED, 2, 20, 0), (MADE, 5, 1, 1), (GONE | RESIZED, 1, 0, 0)))
    check(made)
    assert [(operation, slot) for _, _, operation, slot, _ in rows(made)] == [
        (script.ALLOCATION, 0), (script.RESIZE_FROM, 0), (script.ALLOCATION, 2), (script.RESIZE_TO, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_random_histories_with_holes_stay_sound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    writer = script._Writer()
    for _ in range(6):
        told = [
            (
                int(rng.choice([MADE, GONE, MADE | RESIZED, GONE | RESIZED, MADE | recorded.ZEROED])),
                int(rng.integers(1, 40)),
                int(rng.integers(1, 10_000)),
                int(rng.integers(0, 5)),
            )
            for _ in range(400)
        ]
        writer.add(events(*told))
    made = writer.finish()
    check(made)
    columns = [getattr(made, name) for name in script.COLUMNS]
    pool = rtpool.Pool("64 MiB")
    capsule = _core._replay_open(*columns, made.slots)
    for who in (pool, "malloc", None):
        *_, failures = _core._replay_pass(capsule, who, True)  # type: ignore[arg-type]
        assert failures == 0
    assert pool.stats().current_count == 0
    pool.check()


@pytest.mark.usefixtures("without_huge_pages")  # of libc's heap, which would come by a fault or two
def test_the_command_counts_and_compares(path: Path) -> None:
    figures = json.loads(replay(path, "--json", "--against", peers.LIBC, "--rounds", 1, "--passes", 3).stdout)
    ours, libc = figures["contestants"]["rtpool"], figures["contestants"][peers.LIBC]
    assert figures["operations"] == 2 * figures["allocations"] >= 300
    assert ours["last"]["misses"] == 0 and ours["last"]["faults"] <= 1
    assert ours["first"]["misses"] >= 2
    assert libc["last"]["misses"] is None
    # It gives memory back to the kernel, and pays for it again.
    assert libc["last"]["faults"] > 100 // (mmap.PAGESIZE // 4096)
    if figures["calls_counted_by"]:
        assert ours["last"]["kernel_calls"] == 0
        assert libc["last"]["kernel_calls"] > 0
    assert ours["first"]["peak"] >= 1_600_000
    assert figures["bookkeeping_ns"] > 0


@pytest.mark.slow
def test_the_table_names_what_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = replay(
        path, "--against", peers.LIBC, "--rounds", 1, "--pool", "fit", "--pool", "size=8MiB,huge_pages=no"
    ).stdout
    assert "pool fit" in told and "pool size=8MiB,huge_pages=no" in told and peers.LIBC in told
    assert "own bookkeeping" in told
    monkeypatch.setitem(peers.LIBRARIES, "mimalloc", ("libnosuch.so", "nosuch"))
    assert peers.find("mimalloc").missing == "libnosuch.so not found (Debian: nosuch)"


def test_the_smallest_pool_has_no_miss(path: Path) -> None:
    figures = json.loads(replay(path, "--json", "--rounds", 1, "--pool", "fit", "--no-calls").stdout)
    fit = figures["contestants"]["pool fit"]
    assert fit["first"]["misses"] == fit["last"]["misses"] == 0
    assert fit["first"]["faults"] <= 1
    assert fit["first"]["peak"] < 16 << 20
    assert figures["calls_counted_by"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in peers.LIBRARIES if not peers.find(name).missing])
def test_peers_serve_by_their_libraries(path: Path, name: str) -> None:
    code = "import ctypes, os; print(open('/proc/self/maps').read())"
    maps = subprocess.run(
        [sys.executable, "-c", code],
        env=peers.find(name).environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert name in maps.stdout
    figures = json.loads(replay(path, "--json", "--rounds", 1, "--against", name).stdout)
    assert figures["contestants"][name]["last"]["failures"] == 0


def test_a_library_for_others_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with one, glibc would go on without it, and musl not at all."""
    own = Path("/proc/self/exe").read_bytes()[:20]
    needs = b"GLIBC_2.17" if peers.LIBC == peers.GLIBC else b""
    library = tmp_path / "libjemalloc.so.2"
    monkeypatch.setattr(peers, "_FOLDERS", (str(tmp_path),))
    library.write_bytes(own + needs)
    assert peers.find("jemalloc") == peers.Peer("jemalloc", {"LD_PRELOAD": str(library)}, "")
    of_other_processor = own[:18] + bytes(byte ^ 1 for byte in own[18:]) + needs
    of_32_bits = own[:4] + b"\1" + own[5:] + needs
    of_other_libc = own + (b"" if needs else b"GLIBC_2.17")
    for content in (of_other_processor, of_32_bits, of_other_libc):
        library.write_bytes(content)
        found = peers.find("jemalloc")
        assert not found.environment and found.missing == f"{library} is for another libc or processor"


def test_the_own_libc_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.NAMES[0] == peers.LIBC and not peers.find(peers.LIBC).missing
    monkeypatch.setattr(peers, "LIBC", "musl")
    assert peers.find("glibc").missing == "this Python runs on musl"


def test_wrong_usage_and_files(path: Path, tmp_path: Path, command: Command) -> None:
    def told(*arguments: object) -> str:
        done = command("replay", *arguments)
        assert done.code == 2
        return done.err

    assert "no such allocator: hoard" in told(path, "--against", "hoard")
    assert "--pool takes options" in told(path, "--pool", "big")
    assert "at least 1" in told(path, "--rounds", 0)
    assert "No such file" in told(tmp_path / "none")
    (tmp_path / "text").write_text("no trace at all, but long enough for a head")
    assert "no trace" in told(tmp_path / "text")
    with rtpool.handler(), rtpool.record(tmp_path / "totals", mode="totals"):
        np.ones(1000)
    assert "holds sums" in told(tmp_path / "totals")
    with rtpool.record(tmp_path / "empty", pool=rtpool.Pool()):
        pass
    assert "nothing to replay" in told(tmp_path / "empty")
    assert "ended with exit code" in replay(path, "--pool", "colour=red", status=1).stderr


def test_more_than_the_machine_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    record(tmp_path / "big.trace", loop)
    monkeypatch.setattr(_core, "available_memory", lambda: 1 << 20)
    assert command("replay", tmp_path / "big.trace").code == 2
    assert command("replay", tmp_path / "big.trace", "--no-write", "--rounds", "1", "--no-calls").code == 0


@pytest.mark.parametrize("by", [name for name in ("perf", "strace")])
def test_memory_calls_are_counted_from_outside(by: str) -> None:
    if watch.tracer() != by and not (by == "strace" and watch.tracer()):
        pytest.skip(f"{by} cannot watch a process here")
    code = """
import mmap, sys
for line in sys.stdin:
    for _ in range(int(line)):
        mmap.mmap(-1, 4096).close()
    print("done", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("5\n")
        process.stdout.readline()
        try:
            with watch.watch(process.pid, by) as counts:
                process.stdin.write("100\n")
                process.stdout.readline()
        except (OSError, FileNotFoundError) as error:
            pytest.skip(str(error))
        finally:
            process.stdin.close()
    assert 100 <= counts["mmap"] <= 110
    assert 100 <= counts["munmap"] <= 110


def test_the_bookkeeping_is_told(path: Path, tmp_path: Path) -> None:
    made = script.script_of(rtpool.Trace.load(path).file)
    made.save(str(tmp_path))
    assert 0 < compare.bookkeeping(made, str(tmp_path)) < 10_000
