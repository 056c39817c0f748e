"""Run the stress tests over many seeds and record what was done and found.

    python tests/stress/long_run.py --minutes 10 [--builds tsan asan plain] [--seed 1000] [--record]

Builds them in build/stress-BUILD with ThreadSanitizer (where heap locks are mutexes), with AddressSanitizer and
UndefinedBehaviorSanitizer, and as released (the only one that forks); gives each an equal part of the minutes, one at a
time, and a new seed to each process. With --record the result is written to tests/stress/results. The log of
a finding is kept in build/stress-findings; the run goes on after it. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FINDINGS = ROOT / "build" / "stress-findings"
SANITIZED = ["-Ddebug=false", "-Dcpp_args=-g1", "-Db_ndebug=false", "-Db_lundef=false"]
BUILDS = {
    "tsan": [*SANITIZED, "-Doptimization=1", "-Dcheck_level=2", "-Db_sanitize=thread"],
    "asan": [*SANITIZED, "-Doptimization=0", "-Dcheck_level=3", "-Db_sanitize=address,undefined"],
    "plain": [],
}
SECONDS = 8  # of each test, of which one process runs three
LONGEST = 300


def build(name: str) -> Path:
    """Configure and build the tests; return the program."""
    folder = ROOT / "build" / f"stress-{name}"
    if not (folder / "build.ninja").exists():
        options = ["-Dpython=false", "-Dcore_tests=true", *BUILDS[name]]
        subprocess.run(["meson", "setup", str(folder), str(ROOT), *options], check=True, stdout=subprocess.DEVNULL)
    target = "tests/stress/stress_test"
    subprocess.run(["ninja", "-C", str(folder), target], check=True, stdout=subprocess.DEVNULL)
    return folder / target


def stress(name: str, program: Path, seconds: float, first_seed: int) -> dict[str, Any]:
    """Run one build until its time is over, whatever is found."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    counts_file = FINDINGS / f"{name}.counts"
    counts_file.unlink(missing_ok=True)
    environment = {**os.environ, "RTPOOL_STRESS_SECONDS": str(SECONDS), "RTPOOL_STRESS_COUNTS": str(counts_file)}
    environment.update(TSAN_OPTIONS="exitcode=66:second_deadlock_stack=1", ASAN_OPTIONS="detect_leaks=1")
    environment.update(UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    ends = time.monotonic() + seconds
    findings: list[str] = []
    seed = first_seed
    while seed == first_seed or time.monotonic() < ends:
        environment["RTPOOL_STRESS_SEED"] = str(seed)
        log = FINDINGS / f"{name}-{seed}.log"
        with open(log, "w", encoding="utf-8") as output:
            try:
                run = subprocess.run([program], stdout=output, stderr=output, env=environment, timeout=LONGEST)
                outcome = "" if run.returncode == 0 else f"exit code {run.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"not ended after {LONGEST} s"
        if outcome:
            findings.append(f"{log.name}: {outcome}")
        else:
            log.unlink()
        seed += 1
    counted: dict[str, dict[str, int]] = {}
    for line in counts_file.read_text(encoding="utf-8").splitlines() if counts_file.exists() else []:
        test, _, numbers = line.partition(" ")
        sums = counted.setdefault(test, {})
        for key, value in re.findall(r"(\w+)=(\d+)", numbers):
            sums[key] = sums.get(key, 0) + int(value)
    return {"seconds": round(seconds), "first_seed": first_seed, "tests": counted, "findings": findings}


def revision() -> str:
    """The commit the tree is at; with -dirty, the tree has changes."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="by the clock, over all builds (default 10)")
    parser.add_argument("--builds", nargs="+", choices=BUILDS, default=list(BUILDS))
    parser.add_argument("--seed", type=int, default=1000, help="of the first process (default 1000)")
    parser.add_argument("--record", action="store_true", help="write the result to the repository")
    arguments = parser.parse_args()
    programs = {name: build(name) for name in arguments.builds}
    began = datetime.datetime.now(datetime.timezone.utc)
    built_from = revision()
    seconds = arguments.minutes * 60 / len(programs)
    results = {name: stress(name, program, seconds, arguments.seed) for name, program in programs.items()}
    options = f"--minutes {arguments.minutes:g} --builds {' '.join(programs)} --seed {arguments.seed}"
    record = {
        "command": f"python tests/stress/long_run.py {options}",
        "began": began.isoformat(timespec="seconds"),
        "revision": built_from,
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()},
        "builds": results,
    }
    if arguments.record:
        path = HERE / "results" / f"{began:%Y-%m-%d}-{arguments.minutes:g}-minutes.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))
    return 1 if any(result["findings"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
