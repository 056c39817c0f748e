"""Copies and joins against NumPy, Numba and the machine's own limit.

    python bench/copies.py [--quick] [--json FILE]

Four tables: images side by side in a canvas (the case rtpool's copies are made for), every size from 64 bytes to
1 GiB, what a reader of the result sees, and what the rest of the program sees. All candidates of a line take turns in
one process; figures are medians over the rounds. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import functools
import json
import mmap
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rtpool
from rtpool import _core, copyto

Array = np.ndarray[Any, Any]
Candidates = dict[str, Callable[[], object]]

try:
    import numba
except ImportError:
    numba = None

HUGE = 2 << 20
LIMIT = "limit: bare streaming loop, same places"


def rounds_of(candidates: Candidates, rounds: int, warm: bool = False) -> dict[str, list[float]]:
    """Seconds of each call; in every round each candidate has its turn, in an order drawn for the round.

    `warm`: each turn begins with a call that does not count, so that the caches hold what the candidate itself leaves.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates.items())
    for call in candidates.values():
        call()
    for _ in range(rounds):
        random.shuffle(order)
        for name, call in order:
            if warm:
                call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def in_milliseconds(times: dict[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: round(statistics.median(seconds) * 1e3, 4) for name, seconds in times.items()}


def ratio(times: dict[str, list[float]], of: str, to: str) -> float:
    """How many times as long `of` took as `to`: the median over the rounds, so that a slow minute hits both."""
    return round(statistics.median(a / b for a, b in zip(times[of], times[to], strict=True)), 3)


def compare(
    theirs: Callable[[], object], ours: Callable[[], object], rounds: int, calls: int
) -> tuple[float, float, float]:
    """Median seconds a call of each, and the median over the rounds of their ratio; who is first changes each round."""
    times: dict[Callable[[], object], list[float]] = {theirs: [], ours: []}
    theirs()
    ours()
    for i in range(rounds):
        for call in (theirs, ours) if i % 2 else (ours, theirs):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[call].append((time.perf_counter() - start) / calls)
    ratios = [a / b for a, b in zip(times[theirs], times[ours], strict=True)]
    return statistics.median(times[theirs]), statistics.median(times[ours]), statistics.median(ratios)


def mapped(nbytes: int, huge: bool) -> Array:
    """Resident bytes in pages of 2 MiB or in pages of 4 KiB."""
    memory = mmap.mmap(-1, nbytes + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    start = -array.ctypes.data % HUGE
    array = array[start : start + nbytes]
    array[...] = 1
    return array


def huge_share(arrays: list[Array]) -> float:
    """Share of the arrays' memory that is in transparent huge pages, from /proc/self/smaps."""
    wanted = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
    huge = resident = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(None, 1)[0]
        if "-" in head and ":" not in head:
            low, high = (int(text, 16) for text in head.split("-"))
            inside = any(low < end and begin < high for begin, end in wanted)
        elif inside and head == "Rss:":
            resident += int(line.split()[1])
        elif inside and head == "AnonHugePages:":
            huge += int(line.split()[1])
    return huge / resident if resident else 0.0


def load_limit(folder: str) -> ctypes.CDLL | None:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        return None
    library = Path(folder) / "copies_limit.so"
    source = Path(__file__).with_name("copies_limit.cpp")
    subprocess.run([compiler, "-O3", "-mavx2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def numba_assign() -> Callable[[Array, Array], None] | None:
    if numba is None:
        return None

    @numba.njit  # type: ignore[untyped-decorator]
    def assign(canvas: Any, images: Any) -> None:
        count, rows, row_bytes = images.shape
        for i in range(count):
            for row in range(rows):
                for at in range(row_bytes):
                    canvas[row, i * row_bytes + at] = images[i, row, at]

    return assign  # type: ignore[no-any-return]


def tiles(pages: str, limit: ctypes.CDLL | None, quick: bool) -> dict[str, Any]:
    """100 images (1024, 1024, 4) side by side in a canvas (1024, 102400, 4)."""
    count, rows, width, channels = (10 if quick else 100), 1024, 1024, 4
    nbytes = rows * width * channels
    make = {
        "ordinary": lambda n: np.ones(n, np.uint8),
        "4 KiB": lambda n: mapped(n, False),
        "2 MiB": lambda n: mapped(n, True),
    }[pages]
    # Numba takes one array; its images lie one behind the other, which changes nothing for the others either.
    memory = make(count * nbytes).reshape(count, rows, width, channels) if pages != "ordinary" else None
    images = list(memory) if memory is not None else [make(nbytes).reshape(rows, width, channels) for _ in range(count)]
    spare = make(count * nbytes + 64)
    canvas = spare[: count * nbytes].reshape(rows, count * width, channels)

    def assign() -> None:
        for i, image in enumerate(images):
            canvas[:, i * width : (i + 1) * width] = image

    candidates: Candidates = {
        "numpy assignment": assign,
        "numpy.concatenate(out=)": lambda: np.concatenate(images, 1, canvas),
        "rtpool auto": lambda: rtpool.concatenate(images, 1, canvas),
        "rtpool auto, 1 thread": lambda: rtpool.concatenate(images, 1, canvas, threads=1),
        "rtpool stream, 1 thread": lambda: rtpool.concatenate(images, 1, canvas, mode="stream", threads=1),
        "rtpool cached, 1 thread": lambda: rtpool.concatenate(images, 1, canvas, mode="cached", threads=1),
    }

    def copy_each() -> None:
        for i, image in enumerate(images):
            rtpool.copyto(canvas[:, i * width : (i + 1) * width], image, mode="stream", threads=1)

    candidates["rtpool.copyto stream, each image"] = copy_each
    compiled = numba_assign()
    if compiled is not None and memory is not None:
        flat_canvas = canvas.reshape(rows, -1)
        flat_images = memory.reshape(count, rows, -1)
        candidates["numba loop"] = lambda: compiled(flat_canvas, flat_images)
    if limit is not None:
        pointers = (ctypes.c_void_p * count)(*(image.ctypes.data for image in images))
        # Bare loops need lines: NumPy's own arrays start 16 bytes past one, and the copies above deal with that.
        place = ctypes.c_void_p(canvas.ctypes.data + -canvas.ctypes.data % 64)
        n, r, row = ctypes.c_size_t(count), ctypes.c_size_t(rows), ctypes.c_size_t(width * channels)
        pitch, whole = ctypes.c_size_t(canvas.strides[0]), ctypes.c_size_t(nbytes)
        candidates[LIMIT] = lambda: limit.limit_tiles(place, pitch, pointers, n, r, row)
        candidates["limit: bare streaming loop, one behind the other"] = lambda: limit.limit_flat(
            place, pointers, n, whole
        )
    times = rounds_of(candidates, 3 if quick else 31)
    canvas[...] = 0
    rtpool.concatenate(images, 1, canvas)
    assert np.array_equal(canvas, np.concatenate(images, 1))
    return {
        "pages": pages,
        "huge_share": round(huge_share([canvas, *images]), 3),
        "bytes": count * nbytes,
        "milliseconds": in_milliseconds(times),
        "times_numpy": {name: ratio(times, "numpy assignment", name) for name in times},
        "share_of_limit": {name: ratio(times, LIMIT, name) for name in times} if LIMIT in times else {},
    }


def loops(quick: bool) -> list[dict[str, Any]]:
    """Loops as people write them, a call an image: a canvas that is filled, and tiles that are read at once."""
    count = 10 if quick else 100
    images = [np.full((1024, 1024, 4), i, np.uint8) for i in range(count)]
    canvas = np.zeros((1024, count * 1024, 4), np.uint8)
    tiles = np.zeros((count, 1024, 1024, 4), np.uint8)

    def assign(target: Array, source: Array) -> None:
        target[...] = source

    def fill(copy: Callable[[Array, Array], object]) -> None:
        for i, image in enumerate(images):
            copy(canvas[:, i * 1024 : (i + 1) * 1024], image)

    def fill_and_read(copy: Callable[[Array, Array], object]) -> None:
        for i, image in enumerate(images):
            copy(tiles[i], image)
            tiles[i].max()

    lines = []
    for name, target, loop in (
        ("a canvas filled image by image", 1.6, fill),
        ("tiles of 4 MiB, each read at once", 0.97, fill_and_read),
    ):
        candidates: Candidates = {
            "numpy assignment": functools.partial(loop, assign),
            "rtpool.copyto": functools.partial(loop, copyto),
        }
        times = rounds_of(candidates, 3 if quick else 31)
        ratios = sorted(a / b for a, b in zip(times["numpy assignment"], times["rtpool.copyto"], strict=True))
        lines.append(
            {
                "loop": name,
                "bytes": count << 22,
                "milliseconds": in_milliseconds(times),
                "speedup": round(statistics.median(ratios), 3),
                "quarters": [round(ratios[len(ratios) // 4], 3), round(ratios[3 * len(ratios) // 4], 3)],
                "target": target,
            }
        )
    return lines


def sizes(quick: bool, threads: int | None, offset: int) -> list[dict[str, Any]]:
    """`copyto` against NumPy's assignment; `offset`: how far the two arrays' places in a page differ."""
    lines = []
    last = 64 << 20 if quick else 1 << 30
    source = np.ones(last + 4096, np.uint8)
    target = np.ones(last + 4096, np.uint8)
    shift = (source.ctypes.data - target.ctypes.data + offset) % 4096
    nbytes = 64
    while nbytes <= last:
        dst, src = target[shift : shift + nbytes], source[:nbytes]
        calls = max(1, min(2000, (4 << 20) // nbytes))
        rounds = 5 if quick else max(7, min(60, (3 << 30) // nbytes))

        def assign(dst: Array = dst, src: Array = src) -> None:
            dst[...] = src

        def ours(dst: Array = dst, src: Array = src) -> None:
            copyto(dst, src, threads=threads)

        def plain(dst: Array = dst, src: Array = src) -> None:
            copyto(dst, src)

        # The shortest call for small sizes: naming `threads` costs as much as copying a kilobyte.
        mine = plain if nbytes < 2 << 20 else ours
        numpy_seconds, rtpool_seconds, speedup = compare(assign, mine, rounds, calls)
        lines.append(
            {
                "bytes": nbytes,
                "offset": offset,
                "threads": threads,
                "numpy_us": round(numpy_seconds * 1e6, 4),
                "rtpool_us": round(rtpool_seconds * 1e6, 4),
                "speedup": round(speedup, 3),
            }
        )
        nbytes *= 2
    return lines


def readers(quick: bool) -> list[dict[str, Any]]:
    """Copy and read the result at once (its maximum), and copy and read a table of 4 MiB that was in the cache."""
    lines = []
    table = np.ones(4 << 20, np.uint8)
    for mib in (1, 4, 16, 32, 64) if quick else (1, 4, 8, 16, 24, 32, 48, 64, 128, 256):
        source = np.ones(mib << 20, np.uint8)
        target = np.ones(mib << 20, np.uint8)

        def then_read(mode: Any, what: Array, source: Array = source, target: Array = target) -> Callable[[], object]:
            def run() -> None:
                rtpool.copyto(target, source, mode=mode, threads=1)
                what.max()

            return run

        def copy_only(mode: Any, source: Array = source, target: Array = target) -> Callable[[], object]:
            return lambda: rtpool.copyto(target, source, mode=mode, threads=1)

        candidates: Candidates = {}
        for mode in ("cached", "stream"):
            candidates[f"{mode}: copy"] = copy_only(mode)
            candidates[f"{mode}: copy, read result"] = then_read(mode, target)
            candidates[f"{mode}: copy, read table"] = then_read(mode, table)
        times = rounds_of(candidates, 5 if quick else 21, warm=True)
        lines.append({"mib": mib, "milliseconds": in_milliseconds(times)})
    return lines


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    kernel, threshold, _ = _core.copy_settings()
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "linux": platform.release().split("-")[0],
        "transparent_huge_pages": Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__ if numba is not None else None,
        "rtpool": rtpool.__version__,
        "copy_kernel": kernel,
        "stream_threshold": threshold,
        "libc": " ".join(platform.libc_ver()),
    }


def judge(report: dict[str, Any]) -> dict[str, Any]:
    """The targets, each with its figure."""
    found: dict[str, Any] = {}
    for case, target in (("ordinary", 1.3), ("2 MiB", 1.2)):
        line = next(line for line in report["tiles"] if line["pages"] == case)
        ours = "rtpool auto, 1 thread"
        found[f"{case} pages: times NumPy's speed, 1 thread (at least {target})"] = line["times_numpy"][ours]
        if line["share_of_limit"]:
            found[f"{case} pages: share of the limit, 1 thread (at least 0.95)"] = line["share_of_limit"][ours]
    for line in report.get("loops", ()):
        found[f"{line['loop']}: times NumPy's speed (at least {line['target']})"] = line["speedup"]
    found["any size: worst speed against NumPy (at least 0.95)"] = min(line["speedup"] for line in report["sizes"])
    return found


def show(report: dict[str, Any]) -> None:
    for line in report["tiles"]:
        print(
            f"\nimages side by side, {line['pages']} pages ({line['huge_share']:.0%} huge), {line['bytes'] >> 20} MiB"
        )
        for name, value in line["milliseconds"].items():
            speed = line["bytes"] / value / 1e6
            print(f"  {name:52} {value:9.2f} ms  {speed:6.2f} GB/s  {line['times_numpy'][name]:5.2f}x")
    print("\ncopyto against assignment")
    for line in report["sizes"]:
        print(
            f"  {line['bytes']:>11} bytes  offset {line['offset']:>2}  threads {line['threads'] or 'auto':>4}"
            f"  numpy {line['numpy_us']:>12.3f} us  rtpool {line['rtpool_us']:>12.3f} us  {line['speedup']:6.2f}x"
        )
    print("\nloops, a call an image")
    for line in report.get("loops", ()):
        low, high = line["quarters"]
        print(f"  {line['loop']:<40} {line['speedup']:5.2f}x (half of all rounds: {low:.2f} to {high:.2f})")
    print("\nwhat readers see (milliseconds, 1 thread)")
    for line in report["readers"]:
        print(
            f"  {line['mib']:>4} MiB  "
            + "  ".join(f"{name} {value:.3f}" for name, value in line["milliseconds"].items())
        )
    print("\ntargets")
    for name, value in report["targets"].items():
        print(f"  {name:70} {value}")


PARTS: dict[str, Callable[[bool, ctypes.CDLL | None], Any]] = {
    "tiles": lambda quick, limit: [tiles(pages, limit, quick) for pages in ("ordinary", "4 KiB", "2 MiB")],
    "sizes": lambda quick, _: [
        line for threads, offset in ((None, 0), (1, 0), (None, 16)) for line in sizes(quick, threads, offset)
    ],
    "loops": lambda quick, _: loops(quick),
    "readers": lambda quick, _: readers(quick),
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--quick", action="store_true", help="a tenth of the work, for a look or a test; judges nothing"
    )
    options.add_argument("--json", metavar="FILE", help="write everything as data")
    options.add_argument(
        "--parts", default=",".join(PARTS), help="some of %(default)s; what FILE says of the others stays as it is"
    )
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        options.error(f"no such part: {', '.join(sorted(unknown))}")
    before = json.loads(Path(chosen.json).read_text()) if chosen.json and parts != list(PARTS) else {}
    with tempfile.TemporaryDirectory() as folder:
        limit = load_limit(folder)
        report: dict[str, Any] = {
            "what": "copies and joins: rtpool against NumPy, Numba and bare streaming loops",
            "command": " ".join(["python", "bench/copies.py", *sys.argv[1:]]),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "machine": machine(),
        }
        # When each part was measured, where that was not now.
        earlier = before.get("dates", dict.fromkeys(PARTS, before.get("date")))
        report["dates"] = {part: report["date"] if part in parts else earlier[part] for part in PARTS}
        for part in PARTS:
            report[part] = PARTS[part](chosen.quick, limit) if part in parts else before[part]
    report["targets"] = judge(report)
    show(report)
    if chosen.json:
        Path(chosen.json).parent.mkdir(parents=True, exist_ok=True)
        Path(chosen.json).write_text(json.dumps(report, indent=1) + "\n")
    missed = [name for name, value in report["targets"].items() if value < float(name.rsplit(" ", 1)[1].rstrip(")"))]
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed and not chosen.quick else 0


if __name__ == "__main__":
    sys.exit(main())
