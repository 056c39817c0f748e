"""Runs jobs in the emulated machine and tells of each in a line that begins with @@ on the console.

A job is a program of GoogleTest, a file of pytest, or a command that has to end well. jobs.json beside this file
lists them, and ../junit.py, put beside it as well, reads their reports.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import junit

HERE = Path(__file__).resolve().parent


def tell(what: dict[str, Any]) -> None:
    print("\n@@" + json.dumps(what), flush=True)


def run(job: dict[str, Any]) -> dict[str, Any]:
    place = Path(tempfile.mkdtemp())  # goes with all that the job leaves in it: files here take the machine's memory
    place.chmod(0o1777)  # as /tmp is: some run programs as another user
    report, told = place / "report.xml", place / "output.txt"
    command = [sys.executable if part == "python" else part for part in job["command"]]
    if job["kind"] == "gtest":
        command.append(f"--gtest_output=xml:{report}")
    if job["kind"] == "pytest":
        command.append(f"--junitxml={report}")
    environment = os.environ | {"TMPDIR": str(place)} | job.get("environment", {})
    begin = time.monotonic()
    with told.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(job["seconds"])
        except subprocess.TimeoutExpired:
            code = 124
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what hangs, and what a job leaves running
        process.wait()
    result = {"job": job["name"], "code": code, "seconds": round(time.monotonic() - begin)}
    if report.exists():
        result |= junit.read(report).row()
    if code != 0 or job["kind"] == "command":
        text = told.read_text(encoding="utf-8", errors="replace")[-20_000:]
        print(text, flush=True)
        if job["kind"] == "command" and code != 0:
            result["told"] = text.splitlines()[-12:]  # the reason
    shutil.rmtree(place, ignore_errors=True)
    return result


def main() -> None:
    for job in json.loads((HERE / "jobs.json").read_text(encoding="utf-8")):
        tell({"begin": job["name"]})
        tell(run(job))


if __name__ == "__main__":
    main()
