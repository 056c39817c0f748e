"""Fuzz every target for a long time and record what was done and found.

    python tests/fuzz/long_run.py --minutes 60 [--jobs 2] [--targets pool shared] [--record]

Builds the targets with clang, libFuzzer and sanitizers in build/fuzz, gives each an equal part of the minutes (by the
clock), runs --jobs of them at a time, and prints, per target: processor time it really had, executions, operations,
faults injected, coverage, findings. With --record the result is written to tests/fuzz/results and inputs that reach
something new are added to tests/fuzz/corpus, minimised. A finding is kept in build/fuzz/findings; the run goes on after
it. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz"
CORE_TARGETS = ("pool", "pages", "shared")
TARGETS = (*CORE_TARGETS, "plan")
MOST_BYTES = {"pool": 1500, "pages": 1500, "shared": 1000, "plan": 65536}
# Sanitizers and the core's own checks.
OPTIONS = ["-Dbuildtype=debugoptimized", "-Db_ndebug=false", "-Dcheck_level=2", "-Db_lundef=false"]
OPTIONS += ["-Db_sanitize=address,undefined", "-Dcpp_args=-fno-sanitize-recover=undefined"]
MOST_KEPT = 150  # inputs of a target's corpus in the repository


def build() -> None:
    """Configure and build the targets; a compiler without libFuzzer is an error here."""
    environment = {**os.environ, "CC": os.environ.get("CC", "clang"), "CXX": os.environ.get("CXX", "clang++")}
    if not (BUILD / "build.ninja").exists():
        setup = ["meson", "setup", str(BUILD), str(ROOT), "-Dpython=false", "-Dfuzz=true", *OPTIONS]
        subprocess.run(setup, check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(BUILD)], check=True, env=environment, stdout=subprocess.DEVNULL)
    if b"libFuzzer" not in subprocess.run([target_path("pages"), "-help=1"], capture_output=True).stderr:
        raise SystemExit("no libFuzzer here; on Debian and Ubuntu: apt-get install clang libclang-rt-14-dev")


def target_path(target: str) -> str:
    return str(BUILD / "tests" / "fuzz" / f"{target}_fuzz")


def command_of(target: str, seconds: int, corpus: Path, findings: Path, counts: Path) -> list[str]:
    if target == "plan":
        options = ["--seconds", str(seconds), "--corpus", str(corpus), "--counts", str(counts)]
        return [sys.executable, str(HERE / "plan_fuzz.py"), *options, "--artifacts", f"{findings}/plan-"]
    limits = [f"-max_len={MOST_BYTES[target]}", "-len_control=0", "-timeout=30", "-rss_limit_mb=4096"]
    # The machine may stop a fuzzer for a while: a unit that took long by the clock is no finding, one that hangs is.
    limits.append("-report_slow_units=100000")
    given = [f"-max_total_time={seconds}", "-print_final_stats=1", f"-artifact_prefix={findings}/{target}-"]
    return [target_path(target), "-detect_leaks=0", *limits, *given, str(corpus)]


def seed_corpus(target: str, corpus: Path) -> None:
    """Copy the corpus of the repository, to which new inputs must not be added unasked."""
    corpus.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "corpus" / target).glob("*"):
        shutil.copy(path, corpus / path.name)


def fuzz(target: str, seconds: int) -> dict[str, Any]:
    """Fuzz one target until its time is over, whatever is found."""
    corpus = BUILD / "corpus" / target
    findings = BUILD / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.glob(f"{target}-*"))
    seed_corpus(target, corpus)
    counts = BUILD / f"{target}.counts"
    counts.unlink(missing_ok=True)
    environment = {**os.environ, "RTPOOL_FUZZ_COUNTS": str(counts)}
    environment.update(ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="print_stacktrace=1")
    ends = time.monotonic() + seconds
    summaries: set[str] = set()
    coverage = executions = processes = 0
    cpu = 0.0
    while (left := int(ends - time.monotonic())) > 5 or processes == 0:
        log = BUILD / f"{target}.{processes}.log"
        processes += 1
        with open(log, "w", encoding="utf-8") as output:
            command = ["/usr/bin/env", *command_of(target, max(left, 5), corpus, findings, counts)]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=BUILD)
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        cpu += usage.ru_utime + usage.ru_stime
        text = log.read_text(encoding="utf-8", errors="replace")
        executions += sum(map(int, re.findall(r"number_of_executed_units: (\d+)", text)))
        coverage = max([coverage, *map(int, re.findall(r" cov: (\d+)", text))])
        summaries.update(re.findall(r"(?:SUMMARY|broken|ALARM|Finding): .*", text))
    counted: dict[str, int] = {}
    for name, value in re.findall(r"(\w+)=(\d+)", counts.read_text(encoding="utf-8") if counts.exists() else ""):
        counted[name] = counted.get(name, 0) + int(value)
    if not (executions or counted.get("inputs", 0)):
        raise SystemExit(f"{target}: no input was run; see {log}")
    return {
        "seconds": seconds,
        "cpu_seconds": round(cpu),
        "processes": processes,
        "executions": executions or counted.get("inputs", 0),
        **{name: counted.get(name, 0) for name in ("operations", "faults", "misuses")},
        "edges_covered": coverage,
        "corpus_inputs": len(list(corpus.glob("*"))),
        "findings": sorted(str(path.name) for path in set(findings.glob(f"{target}-*")) - before),
        "summaries": sorted(summaries),
    }


def keep_corpus(target: str) -> int:
    """Add a minimal set of inputs that covers what the run covered; return how many the repository has then."""
    found, kept = BUILD / "corpus" / target, HERE / "corpus" / target
    kept.mkdir(parents=True, exist_ok=True)
    merged = BUILD / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    if target == "plan":
        for path in sorted(found.glob("*"), key=lambda path: path.stat().st_size)[:MOST_KEPT]:
            shutil.copy(path, merged)
    else:
        command = [target_path(target), "-merge=1", str(merged), str(kept), str(found)]
        subprocess.run(command, check=True, cwd=BUILD, capture_output=True)
    for path in kept.glob("*"):
        path.unlink()
    for path in sorted(merged.glob("*"), key=lambda path: path.stat().st_size)[:MOST_KEPT]:
        data = path.read_bytes()
        (kept / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)
    return len(list(kept.glob("*")))


def revision() -> str:
    """The commit the tree is at; with -dirty, the tree has changes."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    git = subprocess.run(command, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="by the clock, over all targets (default 60)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default 2)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--record", action="store_true", help="write the result and the corpus to the repository")
    arguments = parser.parse_args()
    build()
    began = datetime.datetime.now(datetime.timezone.utc)
    built_from = revision()
    seconds = int(arguments.minutes * 60 / len(arguments.targets))
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as workers:
        done = workers.map(lambda one: fuzz(one, seconds), arguments.targets)
        results = dict(zip(arguments.targets, done, strict=True))
    record: dict[str, Any] = {
        "command": f"python tests/fuzz/long_run.py --minutes {arguments.minutes:g} --jobs {arguments.jobs}",
        "began": began.isoformat(timespec="seconds"),
        "revision": built_from,
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()},
        "peak_kib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "targets": results,
    }
    if arguments.record:
        for target in arguments.targets:
            results[target]["corpus_kept"] = keep_corpus(target)
        path = HERE / "results" / f"{began:%Y-%m-%d}-{arguments.minutes:g}-minutes.json"
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))
    return 1 if any(result["findings"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
