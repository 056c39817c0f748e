"""What the Python tests share."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rtpool
from rtpool import _core

Run = Callable[..., subprocess.CompletedProcess[str]]


def doing(what: str) -> None:
    """Keeps what is going on where the one who watches over this run looks for it (tests/bounded.py)."""
    if path := os.environ.get("RTPOOL_TEST_NOW"):
        Path(path).write_text(what, encoding="utf-8")


def pytest_configure() -> None:
    """What is interrupted here is to end also where a shell, which has this run in the background, ignores SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_logstart(nodeid: str) -> None:
    doing(nodeid)


def pytest_sessionfinish() -> None:
    doing("what the tests left, after the last of them")


@pytest.fixture
def pool() -> Iterator[rtpool.Pool]:
    """A pool of 16 MiB; its invariants are checked when the test is over."""
    made = rtpool.Pool("16 MiB", name="test")
    yield made
    made.check()


@pytest.fixture
def shared_pool() -> Iterator[rtpool.SharedPool]:
    """A nameless shared pool of 32 MiB; its invariants are checked when the test is over."""
    made = rtpool.SharedPool.create("32 MiB")
    yield made
    gc.collect()
    made.check()


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def context(request: pytest.FixtureRequest) -> Any:
    """Every way in which `multiprocessing` starts a process."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def run_python() -> Run:
    """Runs code in a Python of its own, which must end with status 0, and gives what it printed.

    RTPOOL_ variables of the caller are not passed on; those given as arguments are.
    """

    def run(
        code: str, *, status: int = 0, timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(params=[name for name, _ in _core.copy_kernels()])
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in [name for name, there in _core.copy_kernels() if there]:
        pytest.skip(f"this processor cannot run the {request.param} kernel")
    _core.force_copy_kernel(request.param)
    yield request.param
    _core.force_copy_kernel(None)
