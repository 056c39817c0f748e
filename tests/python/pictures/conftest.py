"""A browser, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browsers import Browser, open_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    yield from open_browser()
