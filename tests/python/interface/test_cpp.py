"""rtpool.hpp: pools, blocks, std::pmr and allocators, by a client in C++."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from c_modules import load
from clients import HERE, build_module

import rtpool

KINDS = ['rtpool.Pool("4 MiB", name="tested")', 'rtpool.Pool(debug=True, name="tested")']


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_module(HERE / "client.cpp", tmp_path_factory.mktemp("client"), name="client_cpp")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_header_gives_keeps_to_its_pool(file: Path, kind: str) -> None:
    client: Any = load(file)
    pool = eval(kind, {"rtpool": rtpool})
    client.run(pool)
    capsule = client.to_capsule(pool)
    assert pool.stats().current_count == 1
    del capsule
    gc.collect()
    assert pool.stats().current_count == 0 and pool.stats().misuses == 0
    pool.check()


@pytest.mark.parametrize("kind", [*KINDS, 'rtpool.SharedPool.create("4 MiB")'])
def test_destructors_of_statics_run_after_the_interpreter(file: Path, run_python: Any, kind: str) -> None:
    done = run_python(
        f"""
        import sys; sys.path.insert(0, {str(file.parent)!r})
        import client_cpp, rtpool
        client_cpp.keep({kind})
        """
    )
    assert done.stdout == "end: initialized 0, 5 6 7\n" and done.stderr == ""
