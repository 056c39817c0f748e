"""A pytest plugin (`-p rtpool_suite_plugin`) that turns rtpool on before collection and writes down every outcome.

`RTPOOL_SUITE_RECORD` names a folder: each process that runs tests appends to a file of its own there, one JSON
line when a test begins and one when each of its phases ends, so that a test which takes its process down is
seen as one that began and never ended. With `RTPOOL_SUITE_ACTIVATE=1` the plugin calls `rtpool.activate()`
first and writes at the end what the pool counted. The tests that the file `RTPOOL_SUITE_LEFT_OUT` names are
written down as left out, and not run.
"""

from __future__ import annotations

import json
import os
import re
from typing import IO, Any

import pytest

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_ACTIVATE = os.environ.get("RTPOOL_SUITE_ACTIVATE") == "1"

if _ACTIVATE:
    import rtpool

    rtpool.activate()


def _open_record() -> IO[str]:
    path = os.path.join(os.environ["RTPOOL_SUITE_RECORD"], f"{os.getpid()}.jsonl")
    return open(path, "a", buffering=1, encoding="utf-8")


_record = _open_record()


def _write(**line: Any) -> None:
    # A test that forks may come here in the child as well: only the process that opened the record writes to it.
    if _record.name.endswith(f"{os.sep}{os.getpid()}.jsonl"):
        _record.write(json.dumps(line) + "\n")


def _key(item: pytest.Item) -> str:
    """Name a test by its module: paths differ with the root folder, which NumPy's packages do not agree on."""
    module = getattr(item, "module", None)
    rest = item.nodeid.split("::", 1)[-1]
    return _ADDRESS.sub("0x", f"{getattr(module, '__name__', '?')}::{rest}")


@pytest.hookimpl(trylast=True)  # after `-m` has taken its part away
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    with open(os.environ["RTPOOL_SUITE_LEFT_OUT"], encoding="utf-8") as file:
        named = set(file.read().split("\n"))
    left_out = [item for item in items if _key(item) in named]
    for item in left_out:
        _write(test=_key(item), event="left_out")
    if left_out:
        items[:] = [item for item in items if _key(item) not in named]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    _write(test=_key(item), event="start")
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    result = yield
    report = result.get_result()
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xpassed" if report.passed else "xfailed"
    text = str(report.longrepr).strip().splitlines()[-1][:300] if report.failed and report.longrepr else ""
    _write(test=_key(item), event=report.when, outcome=outcome, text=text)


def pytest_sessionfinish() -> None:
    if not _ACTIVATE:
        return
    pool = rtpool.active_pool()
    stats = None if pool is None else pool.stats()
    _write(
        event="pool",
        active=pool is not None,
        allocations=getattr(stats, "total_count", 0),
        bytes=getattr(stats, "total_bytes", 0),
        misuses=getattr(stats, "misuses", None),
    )
