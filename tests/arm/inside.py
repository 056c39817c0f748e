"""Runs jobs in the emulated machine and tells of each in a line that begins with @@ on the console.

A job is a program of GoogleTest, a file of pytest, or a command that has to end well. jobs.json beside this file
lists them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent


def tell(what: dict[str, Any]) -> None:
    print("\n@@" + json.dumps(what), flush=True)


def of_junit(report: Path) -> dict[str, Any]:
    """Counts, the names of what failed, and what was skipped with the reasons, of pytest's or GoogleTest's report."""
    passed, failed, skipped = 0, [], {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif skip is not None:
            skipped[name] = (skip.get("message") or "").splitlines()[-1].strip() if skip.get("message") else "skipped"
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": skipped}


def run(job: dict[str, Any]) -> dict[str, Any]:
    report = Path(tempfile.mkdtemp()) / "report.xml"
    command = [sys.executable if part == "python" else part for part in job["command"]]
    if job["kind"] == "gtest":
        command.append(f"--gtest_output=xml:{report}")
    if job["kind"] == "pytest":
        command.append(f"--junitxml={report}")
    begin = time.monotonic()
    result: dict[str, Any] = {"job": job["name"]}
    try:
        done = subprocess.run(
            command, env=os.environ | job.get("environment", {}), timeout=job["seconds"], check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, output = 124, (late.stdout or b"").decode(errors="replace")
    result |= {"code": code, "seconds": round(time.monotonic() - begin)}
    if report.exists():
        result |= of_junit(report)
    if code != 0 or job["kind"] == "command":
        print(output[-20_000:], flush=True)
    return result


def main() -> None:
    for job in json.loads((HERE / "jobs.json").read_text(encoding="utf-8")):
        tell({"begin": job["name"]})
        tell(run(job))


if __name__ == "__main__":
    main()
