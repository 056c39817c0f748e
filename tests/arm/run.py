"""Cross-build rtpool for 64-bit Arm and test it on emulated machines with pages of 4 and of 16 KiB.

    python tests/arm/run.py [--pages 16k] [--only 'pytest pool/*' 'gtest *'] [--missing] [--record]

Builds the core, its GoogleTest programs and the binding with `aarch64.ini`, and runs in each machine: all of those
programs, every file of tests/python, `demo`, `info`, `doctor`, a real-time section and shared pools between
processes. What an emulator cannot keep is left out by name, with its reason: see EMULATED below. Some 20 times
slower than a machine: hours for all. Programs of GoogleTest run on two emulated processors at once; the other jobs in
the machine's own time (machine.py), in which loops keep their deadlines however busy this machine is.

Needs Debian with g++-aarch64-linux-gnu, libgtest-dev, qemu-system-arm, cpio, and meson and ninja; root, for the
package client. Fetches an Arm system and kernels into build/arm once (--store: elsewhere). Exit code 0: nothing
failed; 1: something did; 2: it cannot be run here. `--record` writes results/arm.json after each job; jobs run before
stay in it, and those that never were are named. So it may be ended at any time, and what is left be run by
`--missing`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import KERNELS, Store, Unavailable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "arm"
RESULTS = HERE / "results" / "arm.json"

# Tests that are not run there: (file below tests/python, name or "" for the whole file) and why.
EMULATED: dict[tuple[str, str], str] = {
    ("module/test_rooms.py", ""): "reads the sources, which are the same everywhere",
}

# The same for programs of GoogleTest.
NATIVE = {"schedules": "explores schedules on one thread, the same everywhere; more than half an hour there"}

# What tests of GoogleTest take for hung after 20 s may here only be slow.
PATIENCE = {"RTPOOL_TEST_PATIENCE": "30"}

# After so long a job counts as failed.
JOB_SECONDS = 3600

# In each machine, before its jobs: the package lies where this system's Python has NumPy, so that its start-up file is
# in force. Its other folder, which sysconfig names, is the same one.
INSTALL = """
python3 - <<'END'
import os, pathlib, site
packages = pathlib.Path("/usr/lib/python3/dist-packages")
for part in pathlib.Path("/job/site").iterdir():
    os.symlink(part, packages / part.name)
local = pathlib.Path(site.getsitepackages()[0])
local.parent.mkdir(parents=True, exist_ok=True)
os.symlink(packages, local)
END
"""

# What the kernel does to memory by itself is told beside: it is what moves pages that a section has made resident.
# Debian's makes huge pages of any memory, libc's heap as well, unless it is told what `doctor` says.
SECTION = """
import pathlib, numpy as np, rtpool
daemon = pathlib.Path("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag")
if daemon.exists(): daemon.write_text("0")
def moved():
    counts = dict(line.split() for line in open("/proc/vmstat"))
    names = ("thp_collapse", "pgmigrate", "numa_", "compact")
    return {name: int(count) for name, count in counts.items() if name.startswith(names)}
before = moved()
with rtpool.realtime("100 ms", warmup=20) as rt:
    for tick in rt:
        a = np.ones((200, 200)); b = (a * 2 + 1).astype(np.float32)
        if tick.index >= 99: rt.stop()
print(rt.report, *rt.report.fault_origins, sep="\\n")
print("moved by the kernel:", {name: now - before[name] for name, now in moved().items() if now != before[name]})
assert rt.report.iterations >= 80 and rt.report.misses == 0 and rt.report.kernel_calls == 0
assert rt.report.minor_faults == 0, rt.report.minor_faults
"""
# Whatever the size of the kernel's pages: by the line that is named as the fix a pool gets huge pages of 2 MiB, and no
# larger ones.
HUGE_PAGES = """
import pathlib, subprocess, numpy as np, rtpool
from rtpool import _core
from rtpool._support.huge_pages import transparent_fix
print(rtpool.Pool("1 MiB").effective)
setting = _core.transparent_huge_setting()
assert setting, "this kernel has no transparent huge pages of 2 MiB"
line = transparent_fix()
print(line)
subprocess.run(line.removesuffix(" (as root)"), shell=True, check=True)
sizes = pathlib.Path("/sys/kernel/mm/transparent_hugepage").glob("hugepages-*kB")
counts = {int(size.name[10:-2]): size / "stats/anon_fault_alloc" for size in sizes}
counts = {kib: file for kib, file in counts.items() if file.exists()}  # small sizes have none
def count():
    return {kib: int(file.read_text()) for kib, file in counts.items()}
before = count()
pool = rtpool.Pool("64 MiB")
made = {f"{kib} KiB": now - before[kib] for kib, now in count().items() if now != before[kib]}
print(setting, made, pool.effective)
huge = {kib: now - before[kib] for kib, now in count().items()}
assert pool.effective.huge_pages == "auto" and pool.effective.as_asked, pool.effective
assert 2048 * huge[2048] >= 62 << 10 and not any(huge[kib] for kib in huge if kib > 2048), made
"""

# Exit codes that are answers: this machine is not fit for real time, or has less than the default pool asks for.
ANSWERS = {"doctor": (0, 1), "info": (0, 1)}


def meson(*arguments: object, **environment: str) -> None:
    subprocess.run(["meson", *map(str, arguments)], cwd=ROOT, env=os.environ | environment, check=True)


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


def stage(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """What goes into the machine, and the jobs there."""
    work = BUILD / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "programs").mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in listed.split("\0"):
        if name and "/results/" not in name and "/corpus/" not in name and (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    meson("install", "-C", folder, "--quiet", "--no-rebuild", "--destdir", work)
    shutil.copy2(HERE / "inside.py", work / "inside.py")

    jobs: list[dict[str, Any]] = []
    told = subprocess.run(["meson", "introspect", "--tests", folder], cwd=ROOT, capture_output=True, check=True).stdout
    for test in json.loads(told):
        if test["name"] in NATIVE:
            continue
        if "RTPOOL_TEST_PAGE" in test["env"]:
            continue  # imitates what is here
        program = Path(test["cmd"][0])
        shutil.copy2(program, work / "programs" / program.name)
        kind = "gtest" if test["protocol"] == "gtest" else "command"
        command = [f"programs/{program.name}", *test["cmd"][1:]]
        environment = test["env"] | PATIENCE
        jobs.append({"name": f"gtest {test['name']}", "kind": kind, "command": command, "environment": environment})
    # What tests do to a machine only where they may: here it is one of their own.
    python = {"RTPOOL_TEST_HUGE_PAGES": "1", "RTPOOL_TEST_OVERCOMMIT": "1"}
    for name, code in (
        ("info", ["-m", "rtpool", "info"]),
        ("doctor", ["-m", "rtpool", "doctor", "--seconds", "2"]),
        ("demo", ["-m", "rtpool", "demo"]),
        ("section", ["-c", SECTION]),
        ("huge pages", ["-c", HUGE_PAGES]),
        ("shared", ["examples/shared_cameras.py"]),
    ):
        jobs.append({"name": name, "kind": "command", "command": ["python", *code], "environment": python})
    for file in sorted((ROOT / "tests" / "python").rglob("test_*.py")):
        inside = file.relative_to(ROOT / "tests" / "python").as_posix()
        if (inside, "") in EMULATED:
            continue
        command = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/python/{inside}"]
        for (name, test), _ in EMULATED.items():
            if name == inside:
                command.append(f"--deselect=tests/python/{inside}::{test}")
        jobs.append({"name": f"pytest {inside}", "kind": "pytest", "command": command, "environment": python})
    for job in jobs:
        job["seconds"] = JOB_SECONDS
        job["own_time"] = job["kind"] != "gtest"
    return work, jobs


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
            seconds = 120 + sum(job["seconds"] for job in left)
            for line in store.boot(pages, work, INSTALL + "python3 /job/inside.py", seconds=seconds, own_time=own_time):
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
    """Of the sources that were built; with a mark where they are not as committed."""
    line = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def recorded() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def record(pages: str, result: dict[str, Any], jobs: list[dict[str, Any]], built: str) -> None:
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
    RESULTS.parent.mkdir(exist_ok=True)
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
    try:
        store = Store(arguments.store)
        folder = build(store.system())
    except Unavailable as reason:
        print(f"not run: {reason}")
        return 2
    work, jobs = stage(folder)
    chosen = [job for job in jobs if any(fnmatch.fnmatch(job["name"], pattern) for pattern in arguments.only)]
    if arguments.list:
        print(*(job["name"] for job in chosen), sep="\n")
        return 0
    failed, built = 0, commit()
    for pages in arguments.pages:
        good = {row["job"] for row in recorded().get(pages, []) if arguments.missing and not bad(row)}
        for result in run_jobs(store, pages, work, [job for job in chosen if job["name"] not in good]):
            print(f"{pages}: {summary(result)}", flush=True)
            failed += bad(result)
            if arguments.record:
                record(pages, result, jobs, built)
    print(f"{failed} jobs failed" if failed else "nothing failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
