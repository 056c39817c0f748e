"""Clients that the tests of the interface share, each compiled once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from c_modules import load
from clients import FIRST, HERE, NOW, build_module


@pytest.fixture(scope="session", params=[NOW, FIRST], ids=["today's header", "first header"])
def client_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C, compiled with today's header and with the first one."""
    return build_module(HERE / "client.c", tmp_path_factory.mktemp("client"), include=request.param)


@pytest.fixture(scope="session")
def client(client_file: Path) -> ModuleType:
    module: Any = load(client_file)
    return module
