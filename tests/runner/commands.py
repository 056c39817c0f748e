"""Commands of a step: what they print goes to its log, each has a deadline, all run in the environment of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bounded import TIME_IS_UP

from runner.outcome import Failed

ROOT = Path(__file__).resolve().parents[2]
BOUNDED = ROOT / "tests" / "bounded.py"
WORK = ROOT / "build" / "tests"
# Seconds in a run of MINUTES: what a command may take, and what goes on inside of one that says what that is.
MINUTES = 30.0
A_COMMAND, A_HUNG_TEST = 600.0, 180.0


class Clock:
    """What is left of the time of the whole run."""

    def __init__(self, minutes: float) -> None:
        self.scale = minutes / MINUTES
        # The last commands are still to be killed and reported then.
        self.end = time.monotonic() + 60 * minutes - 30 * self.scale

    def bound(self, seconds: float) -> float:
        """The time for a command that may take so many seconds in a run of the usual length."""
        return min(seconds * self.scale, self.end - time.monotonic())

    def stop(self) -> None:
        """Nothing more is started."""
        self.end = 0


class Runner:
    """Runs the commands of one step in the test environment, their output in a log file."""

    def __init__(self, step: str, clock: Clock, quick: bool = False, prefix: tuple[str, ...] = ()) -> None:
        self.venv = WORK / "venv"
        self.python = str(self.venv / "bin" / "python")
        self.logs = WORK / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.step = step
        self.clock = clock
        self.processor_time = 0.0
        self.quick = quick
        self.prefix = prefix
        self.env = {**os.environ, "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        self.env.pop("PYTHONPATH", None)
        # Else each thread of OpenBLAS looks for work for a tenth of a second after NumPy's import and after each call,
        # on a processor that another step could use.
        self.env.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

    @property
    def log(self) -> Path:
        return self.logs / f"{self.step}.log"

    def run(
        self,
        *command: str,
        variables: dict[str, str] | None = None,
        seconds: float = A_COMMAND,
        now: Path | None = None,
    ) -> int:
        """Run a command with its output appended to the step's log; return its exit code.

        It may take so many seconds in a run of the usual length. `now`: where it keeps what it is doing; then each of
        these things is bounded, too.
        """
        bound = self.clock.bound(seconds)
        if bound <= 0:
            raise Failed(f"no time is left to run {Path(command[0]).name}")
        bounded = [sys.executable, str(BOUNDED), "--seconds", f"{bound:.0f}"]
        if now is not None:
            bounded += ["--now", str(now), "--each", f"{self.clock.scale * A_HUNG_TEST:.0f}"]
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                [*self.prefix, *bounded, *command],
                cwd=ROOT,
                env={**self.env, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_time += usage.ru_utime + usage.ru_stime
        if process.returncode == TIME_IS_UP:
            said = [line for line in self.tail().splitlines() if line.startswith("bounded: ")]
            raise Failed(said[-1].removeprefix("bounded: "))
        return process.returncode

    def must(self, what: str, *command: str) -> None:
        """Run a command that has to succeed."""
        code = self.run(*command)
        if code != 0:
            raise Failed(f"{what}: exit code {code}")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def install(self, package: str) -> bool:
        """Install a package of the distribution where that is permitted; whether it was tried."""
        apt = shutil.which("apt-get")
        if not apt or os.geteuid() != 0:
            return False
        self.run(apt, "update", "-qq")
        self.run(apt, "install", "-y", "-qq", package, variables={"DEBIAN_FRONTEND": "noninteractive"})
        return True
