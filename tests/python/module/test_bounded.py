"""Commands of the test run end: what hangs is named and shown, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

# Each process keeps the write end of a pipe open: its reader sees the end when all are gone.
FAMILY = """
    import os, signal, sys, time
    def forever(where):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write({end}, where.encode())
        while True:
            time.sleep(1000)
    if os.fork() == 0:  # an orphan in a session of its own
        os.setsid()
        if os.fork() == 0:
            forever("a")
        os._exit(0)
    os.wait()
"""


def bounded(
    code: str, *options: str, seconds: float = 60, pass_fds: tuple[int, ...] = (), interpreter: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "bounded.py"), "--seconds", str(seconds), *options]
    return subprocess.run(
        [*command, sys.executable, "-X", "faulthandler", *interpreter, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=100, pass_fds=pass_fds,
    )  # fmt: skip


@pytest.mark.slow
def test_a_command_that_does_not_end_is_shown_and_killed_with_all_its_processes() -> None:
    read, write = os.pipe()
    code = textwrap.dedent(FAMILY.format(end=write)) + 'forever("b")\n'
    done = bounded(code, seconds=3, pass_fds=(write,))
    os.close(write)
    with os.fdopen(read, "rb") as ended:
        assert sorted(ended.read()) == sorted(b"ab")
    assert done.returncode == 124
    assert done.stderr.count("in forever") == 2, "the stacks"
    assert done.stderr.count("(waits for ") == 2, "the processes"
    assert done.stderr.endswith(f"{Path(sys.executable).name} did not end within 3 s\n")


def test_what_a_command_leaves_behind_is_killed_and_named() -> None:
    read, write = os.pipe()
    code = textwrap.dedent(FAMILY.format(end=write)) + "sys.exit(3)\n"
    done = bounded(code, "--grace", "1", pass_fds=(write,))
    os.close(write)
    with os.fdopen(read, "rb") as ended:
        ended.read()
    assert done.returncode == 3
    assert "left behind" in done.stderr and "forever" in done.stderr


def test_exit_codes_are_the_command_s() -> None:
    assert bounded("import sys; print(5); sys.exit(3)").returncode == 3
    assert bounded("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == 128 + signal.SIGKILL
    missing = subprocess.run(
        [sys.executable, str(TESTS / "bounded.py"), "--seconds", "5", "no-such-command"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert missing.returncode == 127 and "no-such-command" in missing.stderr


def test_it_runs_as_from_a_terminal_also_where_it_does_not() -> None:
    """Shells ignore SIGINT for what runs in the background, and so would every program that they start."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = bounded(
            """
            import os, signal, sys
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
            assert os.getsid(0) == os.getpid() and sys.stdin.read() == ""
            """
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 0, done.stderr


def test_it_ends_with_the_one_who_waits_for_it() -> None:
    read, write = os.pipe()
    code = textwrap.dedent(FAMILY.format(end=write)) + 'forever("b")\n'
    command = [sys.executable, str(TESTS / "bounded.py"), "--seconds", "60", sys.executable, "-c", code]
    for number in (signal.SIGTERM, signal.SIGINT):
        started = subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.PIPE, text=True)
        there = b""
        while len(there) < 2:
            there += os.read(read, 2)
        started.send_signal(number)
        _, told = started.communicate(timeout=60)
        assert started.returncode == 128 + number and f"ended by {number.name}" in told
    os.close(write)
    with os.fdopen(read, "rb") as ended:
        ended.read()


HANGS = """
    import signal
    def test_before(): pass
    def test_that_hangs():
        signal.pause()
    def test_that_cannot_be_stopped():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGABRT})
        signal.pause()
    def test_after(): pass
"""


def run_tests(folder: Path, *options: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Pytest as tests/run.py runs it, with other bounds."""
    (folder / "test_hangs.py").write_text(textwrap.dedent(HANGS))
    now = folder / "now"
    command = [sys.executable, str(TESTS / "bounded.py"), "--seconds", str(seconds), "--now", str(now), "--each", "3"]
    command += [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", *options]
    variables = {"PYTHONPATH": str(TESTS / "python"), "RTPOOL_TEST_NOW": str(now)}
    # Of what is installed for pytest, only what is tested here: the start takes half the time.
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if any("timeout" in option for option in options):
        variables["PYTEST_PLUGINS"] = "pytest_timeout"
    return subprocess.run(
        [*command, str(folder)],
        env=os.environ | variables, cwd=folder, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


@pytest.mark.slow
def test_a_test_that_hangs_fails_and_the_others_go_on(tmp_path: Path) -> None:
    pytest.importorskip("pytest_timeout", reason="pytest-timeout is not installed (pip install rtpool[test])")
    options = ["--timeout=2", "-o", "timeout_method=signal", "--deselect", "test_hangs.py::test_that_cannot_be_stopped"]
    done = run_tests(tmp_path, *options)
    assert done.returncode == 1
    assert "FAILED test_hangs.py::test_that_hangs" in done.stdout and "signal.pause()" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


@pytest.mark.slow
def test_a_test_that_cannot_be_stopped_ends_the_run_and_is_named(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "--deselect", "test_hangs.py::test_that_hangs")
    assert done.returncode == 124
    assert "in test_that_cannot_be_stopped" in done.stderr, "its stack"
    assert done.stderr.endswith("bounded: test_hangs.py::test_that_cannot_be_stopped did not end within 3 s\n")
