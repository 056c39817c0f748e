"""Cross-build rtpool for 64-bit Arm and test it on emulated machines with pages of 4 and of 16 KiB.

    python tests/arm/run.py [--pages 16k] [--only 'pytest pool/*' 'gtest *'] [--missing] [--record]

Builds the core, its GoogleTest programs and the binding with `aarch64.ini`, and runs in each machine: all of those
programs, every file of tests/python, `demo`, `info`, `doctor`, a real-time section and shared pools between
processes. What an emulator cannot keep is left out by name, with its reason: see EMULATED in jobs.py. Some 20 times
slower than a machine: hours for all. Programs of GoogleTest run on two emulated processors at once; the other jobs in
the machine's own time (machine.py), in which loops keep their deadlines however busy this machine is.

Needs Debian with g++-aarch64-linux-gnu, libgtest-dev, qemu-system-arm, cpio, and meson and ninja, Python 3.11; root,
for the package client. Fetches an Arm system and kernels into build/arm once (--store: elsewhere). Exit code 0: nothing
failed; 1: something did; 2: it cannot be run here. `--record` writes results/arm.json after each job; jobs run before
stay in it, and those that never were are named. So it may be ended at any time, and what is left be run by
`--missing`. Two of these commands may run at a time, as for both sizes of pages.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from jobs import EMULATED, HERE, INSTALL, NATIVE, ROOT, meson, stage
from machine import KERNELS, Store, Unavailable

BUILD = ROOT / "build" / "arm"
RESULTS = HERE / "results" / "arm.json"

# After so long without a word the machine is hung.
SILENCE = 3600

# Exit codes that are answers: this machine is not fit for real time, or has less than the default pool asks for.
ANSWERS = {"doctor": (0, 1), "info": (0, 1)}


def build(root: Path) -> Path:
    """Cross-build; the build folder."""
    folder = BUILD / "cross"
    options = [
        "--cross-file",
        HERE / "aarch64.ini",
        "-Dcore_tests=true",
        "-Dbuildtype=release",
        "-Db_ndebug=if-release",
        "-Dtogether=true",
    ]
    options += ["-Dpython.platlibdir=/site", "-Dpython.purelibdir=/site", "-Dpython.bytecompile=-1"]
    if not (folder / "build.ninja").exists():
        meson("setup", folder, *options, RTPOOL_ARM_ROOT=str(root))
    meson("compile", "-C", folder, RTPOOL_ARM_ROOT=str(root))
    return folder


def run_jobs(store: Store, pages: str, work: Path, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every job's result, as it comes; where a job takes the machine with it, the rest go on in a new one."""
    for own_time in (False, True):
        yield from run_in_turn(store, pages, work, [job for job in jobs if job["own_time"] == own_time], own_time)


def run_in_turn(
    store: Store, pages: str, work: Path, jobs: list[dict[str, Any]], own_time: bool
) -> Iterator[dict[str, Any]]:
    logs = BUILD / f"log-{pages}.txt"
    left = list(jobs)
    while left:
        (work / "jobs.json").write_text(json.dumps(left))
        begun = ""
        done = 0
        with logs.open("a", encoding="utf-8") as log:
            log.write(f"\n=== {time.strftime('%F %T')}\n")
            command = INSTALL + "python3 /job/inside.py"
            for line in store.boot(pages, work, command, silence=SILENCE, own_time=own_time):
                log.write(line + "\n")
                log.flush()
                if not line.startswith("@@"):
                    continue
                told = json.loads(line[2:])
                if "begin" in told:
                    begun = told["begin"]
                    continue
                done += 1
                yield told
        if done == 0 or done < len(left):
            lost = left[done]["name"]
            yield {"job": lost, "code": -1, "failed": [f"the machine ended in {begun or 'its start'}"]}
            done += 1
        left = left[done:]


def bad(result: dict[str, Any]) -> bool:
    # 5: pytest found nothing that is to be run there.
    return bool(result.get("failed")) or result["code"] not in ANSWERS.get(result["job"], (0, 5))


def summary(result: dict[str, Any]) -> str:
    text = f"exit code {result['code']}"
    if "passed" in result:
        text = f"{result['passed']} passed, {len(result['failed'])} failed, {len(result['skipped'])} skipped"
    return "\n  ".join([f"{result['job']}: {text}, {result.get('seconds')} s", *result.get("failed", [])])


def commit() -> str:
    """Of the sources that were built; with a mark where they, and not results alone, are not as committed."""

    def git(*line: str) -> str:
        return subprocess.run(["git", *line], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)*/results/*")
    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed)


def recorded() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def cost(job: dict[str, Any]) -> float:
    """What a job took when it last ran, so that the cheap ones come first; of one that never did, as others do."""
    took = [row["seconds"] for rows in recorded().values() if isinstance(rows, list) for row in rows
            if isinstance(row, dict) and row["job"] == job["name"] and "seconds" in row]  # fmt: skip
    return max(took, default=30)


def record(pages: str, result: dict[str, Any], jobs: list[dict[str, Any]], built: str) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with (BUILD / "results.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record_alone(pages, result, jobs, built)


def record_alone(pages: str, result: dict[str, Any], jobs: list[dict[str, Any]], built: str) -> None:
    known = recorded()
    rows = {row["job"]: row for row in known.get(pages, [])}
    rows[result["job"]] = result | {"date": time.strftime("%Y-%m-%d"), "commit": built}
    order = [job["name"] for job in jobs]
    known[pages] = [rows[name] for name in order if name in rows]
    known["command"] = "python tests/arm/run.py --record"
    known["left_out"] = {f"{file}::{name}".rstrip(":"): why for (file, name), why in EMULATED.items()} | NATIVE
    known["not_run"] = {
        size: [name for name in order if name not in {row["job"] for row in known.get(size, [])}] for size in KERNELS
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="jobs whose names match")
    parser.add_argument("--store", type=Path, default=BUILD / "store", help="where the Arm system and kernels are kept")
    parser.add_argument("--list", action="store_true", help="name the jobs and end")
    parser.add_argument("--missing", action="store_true", help="jobs that the results do not have, or that failed")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and the machine with it
    try:
        store = Store(arguments.store)
        folder = build(store.system())
    except Unavailable as reason:
        print(f"not run: {reason}")
        return 2
    with tempfile.TemporaryDirectory(dir=BUILD) as work:
        return run(arguments, store, Path(work), stage(folder, Path(work)))


def run(arguments: argparse.Namespace, store: Store, work: Path, jobs: list[dict[str, Any]]) -> int:
    chosen = [job for job in jobs if any(fnmatch.fnmatch(job["name"], pattern) for pattern in arguments.only)]
    if arguments.list:
        print(*(job["name"] for job in chosen), sep="\n")
        return 0
    failed, built = 0, commit()
    for pages in arguments.pages:
        good = {row["job"] for row in recorded().get(pages, []) if arguments.missing and not bad(row)}
        left = sorted((job for job in chosen if job["name"] not in good), key=cost)
        for result in run_jobs(store, pages, work, left):
            print(f"{pages}: {summary(result)}", flush=True)
            failed += bad(result)
            if arguments.record:
                record(pages, result, jobs, built)
    print(f"{failed} jobs failed" if failed else "nothing failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
