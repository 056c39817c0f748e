"""What runs in the emulated machines: the files that go into one, and its jobs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Tests that are not run there: (file below tests/python, name or "" for the whole file) and why.
SOURCES = "reads the sources, which are the same everywhere"
COMMANDS = "tests a command for those who work on rtpool, which runs on their machine; nothing of rtpool runs in it"
EMULATED: dict[tuple[str, str], str] = {
    ("docs/test_figures.py", ""): SOURCES,
    ("docs/test_linkcheck.py", ""): COMMANDS,
    ("docs/test_links.py", ""): SOURCES,
    ("module/test_bounded.py", ""): COMMANDS,
    ("module/test_compilers.py", ""): COMMANDS,
    ("module/test_configure.py", ""): "configures builds, for which that system has no Meson",
    ("module/test_includes.py", ""): COMMANDS,
    ("module/test_results.py", ""): COMMANDS,
    ("module/test_rooms.py", ""): SOURCES,
    ("module/test_wheel_checks.py", ""): COMMANDS,
    ("pictures/test_browser.py", ""): "looks at pages in a browser, which that system does not have",
    ("pictures/test_vendored.py", ""): SOURCES,
    ("pool/test_idle.py", "test_a_loop_beside_it_does_not_fault"): "its processors take turns: beside a loop each page"
    " that the kernel takes back on the other one waits for a turn, and 2 MiB take a second",
    ("realtime/test_realtime_process.py", "test_costs_of_entering"): "holds a time against a bound",
}

# The same for programs of GoogleTest.
NATIVE = {"schedules": "explores schedules on one thread, the same everywhere; more than half an hour there"}

# What tests of GoogleTest take for hung after 20 s may here only be slow.
PATIENCE = {"RTPOOL_TEST_PATIENCE": "30"}

# After so long in the machine's own time a job counts as failed.
JOB_SECONDS = {"gtest": 3600, "pytest": 600, "command": 600}

# In each machine, before its jobs: the package lies where this system's Python has NumPy, so that its start-up file is
# in force. Its other folder, which sysconfig names, is the same one. Its command is where pip would put it.
INSTALL = """
mkdir -p /usr/local/bin; cp /job/rtpool-config /usr/local/bin/
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


def meson(*arguments: object, **environment: str) -> None:
    subprocess.run(["meson", *map(str, arguments)], cwd=ROOT, env=os.environ | environment, check=True)


def say_what_is_installed(work: Path) -> None:
    """What pip would write beside the package: its name and version, what it needs, its plug-ins and commands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    settings = (ROOT / "meson.build").read_text(encoding="utf-8")
    (version,) = re.findall(r"^  version: '([^']+)',$", settings, re.MULTILINE)
    folder = work / "site" / f"rtpool-{version}.dist-info"
    folder.mkdir()
    needed = "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rtpool\nVersion: {version}\n{needed}")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    for name, place in project["scripts"].items():
        module, function = place.split(":")
        program = f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        (work / name).write_text(program)
        (work / name).chmod(0o755)


def stage(folder: Path, work: Path) -> list[dict[str, Any]]:
    """Puts what goes into the machine into `work`; the jobs there."""
    (work / "programs").mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in listed.split("\0"):
        if name and "/results/" not in name and "/corpus/" not in name and (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    meson("install", "-C", folder, "--quiet", "--no-rebuild", "--destdir", work)
    say_what_is_installed(work)
    for file in (HERE / "inside.py", HERE.parent / "junit.py"):
        shutil.copy2(file, work / file.name)

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
        options = ("-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=240")  # names what hangs
        command = ["python", "-m", "pytest", *options, f"tests/python/{inside}"]
        for (name, test), _ in EMULATED.items():
            if name == inside:
                command.append(f"--deselect=tests/python/{inside}::{test}")
        jobs.append({"name": f"pytest {inside}", "kind": "pytest", "command": command, "environment": python})
    for job in jobs:
        job["seconds"] = JOB_SECONDS[job["kind"]]
        job["own_time"] = job["kind"] != "gtest"
    return jobs
