"""What the Python tests share."""

from __future__ import annotations

import ctypes
import functools
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
from commands import Command, run_here

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


@pytest.fixture(scope="session", autouse=True)
def children_without_pytest() -> Iterator[None]:
    """A child that `multiprocessing` starts anew runs the main program once more, which is pytest: for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.delattr(sys.modules["__main__"], "__file__", raising=False)
        yield


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def context(request: pytest.FixtureRequest) -> Any:
    """Every way in which `multiprocessing` starts a process."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def without_huge_pages() -> Iterator[None]:
    """The kernel makes no huge pages by itself, here and in processes that are started from here.

    Where it makes them of any memory, as Debian's does, what libc has comes and stays in pieces of 2 or, with pages of
    16 KiB, 32 MiB: a fault brings so much, and so much comes back after memory has gone.
    """
    libc = ctypes.CDLL(None)

    def disable(on: int) -> None:
        assert libc.prctl(41, *map(ctypes.c_ulong, (on, 0, 0, 0))) == 0  # PR_SET_THP_DISABLE

    disable(1)
    yield
    disable(0)


@pytest.fixture
def run_python() -> Run:
    """Runs code in a Python of its own, which must end with status 0, and gives what it printed.

    RTPOOL_ variables of the caller are not passed on; those given as arguments are, unless None: these are taken away.
    """

    def run(
        code: str, *, status: int = 0, timeout: float = 600, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
            env={key: value for key, value in (inherited | environment).items() if value is not None},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of `python -m rtpool` in this process."""
    return functools.partial(run_here, capsys)


@pytest.fixture(params=[name for name, _ in _core.copy_kernels()])
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in [name for name, there in _core.copy_kernels() if there]:
        pytest.skip(f"this processor cannot run the {request.param} kernel")
    _core.force_copy_kernel(request.param)
    yield request.param
    _core.force_copy_kernel(None)
