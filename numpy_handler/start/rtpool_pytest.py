"""pytest plugin of rtpool: the marker ``rtpool``. Imports nothing of rtpool or NumPy until a test has it.

A test's figures travel with its report (`user_properties`), so that under xdist the process that sums up has them all.
"""

from __future__ import annotations

import inspect
import json
import unittest
from typing import Any

import pytest

_MARKER = "rtpool"


def pytest_addoption(parser: Any) -> None:
    """Options; none is needed."""
    group = parser.getgroup("rtpool", "memory of NumPy's arrays (rtpool)")
    group.addoption("--rtpool-json", metavar="FILE", help="write what tests with the marker rtpool came to, as JSON")
    group.addoption(
        "--rtpool-update", action="store_true", help="write what the tests came to into the baseline, as what is right"
    )
    parser.addini(
        "rtpool_baseline",
        "file with what tests with the marker rtpool may need where the marker does not say (of the root folder)",
        default="rtpool-baseline.json",
    )


def pytest_configure(config: Any) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "rtpool(misses=, page_faults=, temporaries=, peak=, leaks=, warmup=3, repeat=5): run the test with NumPy's"
        " arrays from a pool, and fail if its calls after the warm-up came to more than this, or than the baseline.",
    )
    config.stash[_KEY] = _Session(config)


class _Session:
    """What is known of the tests of this run."""

    def __init__(self, config: Any) -> None:
        self.path = str(config.rootpath / config.getini("rtpool_baseline"))
        self.update = bool(config.getoption("rtpool_update"))
        self.json = config.getoption("rtpool_json")
        self.told: dict[str, dict[str, Any]] = {}
        self.new = 0
        self.written = ""
        self._baseline: dict[str, dict[str, int]] | None = None

    def baseline(self, test: str) -> dict[str, int]:
        """What a test may need; nothing if that is not known, or to be written anew."""
        if self.update:
            return {}
        if self._baseline is None:
            from rtpool._trace import baseline

            self._baseline = baseline.load(self.path)
        return self._baseline.get(test, {})


_KEY = pytest.StashKey[_Session]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Say so where the marker could not be obeyed, instead of passing."""
    if item.get_closest_marker(_MARKER) is None:
        return
    if not isinstance(item, pytest.Function) or (item.cls is not None and issubclass(item.cls, unittest.TestCase)):
        pytest.fail(
            "rtpool marker: it is for test functions and methods of pytest, which it calls several times; this is "
            + ("a test of unittest.TestCase" if isinstance(item, pytest.Function) else type(item).__name__),
            pytrace=False,
        )
    if inspect.iscoroutinefunction(item.obj) or inspect.isasyncgenfunction(item.obj):
        pytest.fail("rtpool marker: not for coroutines; let a plain test call asyncio.run", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Run a test that has the marker."""
    marker = pyfuncitem.get_closest_marker(_MARKER)
    if marker is None:
        return None
    from rtpool._trace import limits

    if marker.args:
        pytest.fail("rtpool marker: its limits have names: @pytest.mark.rtpool(misses=0)", pytrace=False)
    try:
        asked, warmup, repeat = limits.parse_limits(marker.kwargs)
        baseline = pyfuncitem.config.stash[_KEY].baseline(pyfuncitem.nodeid)
    except (TypeError, ValueError) as error:
        pytest.fail(str(error), pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    measured, trace = limits.measure(lambda: pyfuncitem.obj(**arguments), warmup, repeat)
    text = limits.complaint(measured, asked, trace, baseline)
    told = {"measured": measured._asdict(), "limits": asked, "baseline": baseline, "failed": text}
    pyfuncitem.user_properties.append((_MARKER, told))
    if text:
        pytest.fail(text, pytrace=False)
    return True


class _Reports:
    """Where reports come together: the only process, or the one that xdist's workers report to."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: Any) -> None:
        for name, told in report.user_properties if report.when == "call" else ():
            if name == _MARKER:
                self._session.told[report.nodeid] = told
                self._session.new += not told["baseline"] and not told["limits"]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: Any) -> None:
    """Listen to reports, unless this is a worker of xdist, whose reports are heard elsewhere."""
    config = session.config
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reports(config.stash[_KEY]), "rtpool-reports")


def pytest_sessionfinish(session: Any) -> None:
    """Write what is to be written."""
    config = session.config
    own = config.stash[_KEY]
    if hasattr(config, "workerinput"):
        return
    if own.json is not None:
        with open(own.json, "w", encoding="utf-8") as file:
            json.dump({"format": "rtpool-tests", "version": 1, "tests": dict(sorted(own.told.items()))}, file, indent=1)
    if own.update and own.told:
        from rtpool._trace import baseline

        measured = {name: told["measured"] for name, told in own.told.items() if not told["failed"]}
        try:
            count = baseline.update(own.path, measured)
            own.written = f"{own.path}: {len(measured)} of {count} tests are as in this run"
        except (OSError, ValueError) as error:
            own.written = f"the baseline was not written: {error}"
            session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """A line where there is something to say."""
    own = config.stash[_KEY]
    if own.written:
        terminalreporter.write_line(f"rtpool: {own.written}")
    elif own.new:
        terminalreporter.write_line(
            f"rtpool: {own.new} tests have neither limits nor a baseline; --rtpool-update writes {own.path}"
        )
