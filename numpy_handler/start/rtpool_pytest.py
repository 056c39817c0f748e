"""pytest plugin of rtpool: the marker ``rtpool``. Imports nothing of rtpool or NumPy until a test has it."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_configure(config: Any) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "rtpool(misses=, page_faults=, temporaries=, peak=, leaks=, warmup=3, repeat=5): run the test with NumPy's"
        " arrays from a pool, and fail if its calls after the warm-up came to more than this.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Run a test that has the marker."""
    marker = pyfuncitem.get_closest_marker("rtpool")
    if marker is None:
        return None
    from rtpool._trace import limits

    if marker.args:
        pytest.fail("rtpool marker: its limits have names: @pytest.mark.rtpool(misses=0)", pytrace=False)
    try:
        asked, warmup, repeat = limits.parse_limits(marker.kwargs)
    except (TypeError, ValueError) as error:
        pytest.fail(str(error), pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    measured, trace = limits.measure(lambda: pyfuncitem.obj(**arguments), warmup, repeat)
    pyfuncitem.user_properties.append(("rtpool", measured._asdict()))
    text = limits.complaint(measured, asked, trace)
    if text:
        pytest.fail(text, pytrace=False)
    return True
