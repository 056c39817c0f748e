"""The clients under AddressSanitizer: nothing is found in what the headers do, and what a client does wrong is."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from c_modules import compile_with, compiler
from clients import HERE, build_module

PRELUDE = """
import ctypes, os, sys
sys.path.insert(0, os.environ["CLIENT"])
import rtpool
"""
GOOD = """
import client, client_cpp
for kind in (rtpool.Pool(64 << 10, name="tested", when_full="fallback"), rtpool.Pool(name="tested"), None):
    pool = 0 if kind is None else client.pool_from_object(kind)
    blocks = [client.allocate_zeroed(pool, size) for size in (1, 100, 5000, 300_000)]
    blocks = [client.resize(pool, block, 10_000) for block in blocks]
    capsule = client.capsule(pool, blocks.pop())
    client.free_any(blocks.pop())
    for block in blocks:
        ctypes.memset(block, 1, 10_000)
        client.release(pool, block, 10_000)
    aligned = client.allocate_aligned(pool, 3_000_000, 4096)
    client.release(pool, aligned, 3_000_000)
    last = client.in_thread(pool, 5000, 10)[0]
    client.release(pool, last, 10_000)
    del capsule
    client.release_pool(pool)
client_cpp.run(rtpool.Pool(name="tested"))
client_cpp.keep(rtpool.Pool(name="tested"))
client.release_at_exit(0, client.allocate_zeroed(0, 100), 100)
"""
BAD = """
import client
block = client.allocate(0, 100)
client.release(0, block, 100)
client.release(0, block, 100)
"""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which both clients, built with AddressSanitizer, can be imported."""
    library = compile_with(compiler(), "-print-file-name=libasan.so").stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("this compiler has no libasan.so")
    folder: Path = tmp_path_factory.mktemp("sanitized")
    flags = ["-fsanitize=address", "-fno-omit-frame-pointer"]
    build_module(HERE / "client.c", folder, *flags)
    build_module(HERE / "client.cpp", folder, *flags, name="client_cpp")
    standard = compile_with(compiler(cxx=True), "-print-file-name=libstdc++.so.6").stdout.strip()
    environment = {
        "LD_PRELOAD": f"{library} {standard}",
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=99",
        "CLIENT": str(folder),
    }
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # which has one allocator, its own
        environment["PYTHONMALLOC"] = "malloc"
    return environment


@pytest.mark.slow
def test_nothing_is_found_in_what_the_headers_do(sanitized: dict[str, str], run_python: Any) -> None:
    done = run_python(PRELUDE + GOOD, **sanitized)
    assert "AddressSanitizer" not in done.stderr, done.stderr
    assert "end: initialized 0, 5 6 7" in done.stdout


@pytest.mark.slow
def test_what_a_client_does_wrong_is_found(sanitized: dict[str, str], run_python: Any) -> None:
    done = run_python(PRELUDE + BAD, status=99, **sanitized)
    assert "attempting double-free" in done.stderr and "client.c" in done.stderr
