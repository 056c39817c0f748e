"""A client compiled with one header and an rtpool of another version: what runs, and what says why it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from c_modules import STRICT, compile_with, compiler
from clients import FIRST, HERE, NOW, build_module

import rtpool

HEADER = (NOW / "rtpool" / "rtpool.h").read_text(encoding="utf-8")


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """A header that differs, as an include folder."""
    text = HEADER
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "rtpool").mkdir()
    (folder / "rtpool" / "rtpool.h").write_text(text, encoding="utf-8")
    return folder


def newer(folder: Path) -> Path:
    """The header of an rtpool to come: the table has a member more."""
    end = "  void *(*object_from_pool)(rtpool_pool *pool);\n} rtpool_api;"
    return changed(
        folder, (end, end.replace("} rtpool_api", "  size_t (*from_tomorrow)(rtpool_pool *pool);\n} rtpool_api"))
    )


def run(run_python: Any, module: Path, code: str = "", **environment: str) -> str:
    text = f"import sys; sys.path.insert(0, {str(module.parent)!r})\n{code}"
    done = run_python(text, **environment)
    return str(done.stdout)


IMPORT = """
try:
    import client
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("include", [NOW, FIRST], ids=["today's header", "first header"])
@pytest.mark.parametrize("standard", ["-std=c99", "-std=c17"])
def test_the_layout_of_the_first_table_stays(include: Path, standard: str, tmp_path: Path) -> None:
    arguments = [standard, *STRICT, f"-I{include}", "-c", HERE / "layout.c", "-o", tmp_path / "layout.o"]
    done = compile_with(compiler(), *arguments)
    assert done.returncode == 0, done.stderr


def test_today_s_table_begins_as_the_first_did() -> None:
    """What clients of the first header were told of each member still stands there."""

    def members(text: str) -> list[str]:
        table = re.search(r"typedef struct rtpool_api \{(.*?)\} rtpool_api;", text, re.DOTALL)
        assert table is not None
        return re.findall(r"^  \w[^/\n]*;", table[1], re.MULTILINE)

    first = members((FIRST / "rtpool" / "rtpool.h").read_text(encoding="utf-8"))
    assert len(first) == 20 and members(HEADER)[: len(first)] == first


def test_a_newer_client_says_that_rtpool_is_too_old(tmp_path: Path, run_python: Any) -> None:
    module = build_module(HERE / "client.c", tmp_path, include=newer(tmp_path))
    said = run(run_python, module, IMPORT)
    assert f"rtpool {rtpool.__version__} cannot be used by this extension: it is older than the headers" in said
    assert "install a newer rtpool" in said and "with 152 bytes, needed are 1 with 160" in said


def test_a_newer_client_that_can_do_without_what_is_new_runs(tmp_path: Path, run_python: Any) -> None:
    include = newer(tmp_path)
    minimum = "-DRTPOOL_MINIMUM_SIZE=offsetof(rtpool_api, from_tomorrow)"
    module = build_module(HERE / "client.c", tmp_path, minimum, include=include)
    assert run(run_python, module, "import client\nprint(client.table()[3])") == "160\n"
    source = tmp_path / "asks.c"
    source.write_text(
        "#include <rtpool/rtpool.h>\nint main(void) {\n  rtpool_api old = {0};\n"
        "  old.size = offsetof(rtpool_api, from_tomorrow);\n"
        "  return RTPOOL_HAS(&old, object_from_pool) && !RTPOOL_HAS(&old, from_tomorrow) ? 0 : 1;\n}\n"
    )
    program = tmp_path / "asks"
    done = compile_with(compiler(), "-std=c99", *STRICT, f"-I{include}", source, "-o", program)
    assert done.returncode == 0, done.stderr
    assert compile_with([str(program)]).returncode == 0


def test_another_interface_is_refused(tmp_path: Path, run_python: Any) -> None:
    include = changed(tmp_path, ("#define RTPOOL_ABI 1", "#define RTPOOL_ABI 2"))
    module = build_module(HERE / "client.c", tmp_path, include=include)
    said = run(run_python, module, IMPORT)
    assert "its C interface is another one; build this extension anew" in said and "it has interface 1" in said


FAKE = """
import sys, types
fake = types.ModuleType("rtpool")
fake._core = types.SimpleNamespace({})
sys.modules["rtpool"] = fake
"""


@pytest.mark.parametrize(
    ("core", "text"),
    [
        ("", "the rtpool installed has no C interface, which came with 0.2.0; install a newer rtpool"),
        ("_C_API=3", "rtpool._core._C_API is no capsule of that name"),
    ],
)
def test_what_is_no_table(client_file: Path, run_python: Any, core: str, text: str) -> None:
    assert text in run(run_python, client_file, FAKE.format(core) + IMPORT)


def test_without_rtpool(tmp_path: Path, client_file: Path, run_python: Any) -> None:
    """A client that needs it says so; one that can do without allocates from malloc, and may find it later."""
    hidden = "import sys; sys.modules['rtpool'] = None\n"
    assert "rtpool" in run(run_python, client_file, hidden + IMPORT)
    optional = build_module(HERE / "client.c", tmp_path, "-DCLIENT_CAN_DO_WITHOUT")
    code = """
import client
assert client.found == 0 and client.table() is None and client.default_pool() == client.pool_from_object(None) == 0
block = client.allocate(0, 1000)
assert client.owner(block) == 0
client.release(0, block, 1000)
capsule = client.capsule(0, client.allocate(0, 1000))
try:
    client.pool_from_object(3)
except TypeError as error:
    print(error)
"""
    said = run(run_python, optional, hidden + code)
    assert "pool must be None as long as rtpool is not installed" in said
    late = """
import client
before = client.allocate(0, 1000)
del sys.modules["rtpool"]
assert client.find() == 1
pool = client.default_pool()
assert pool != 0 and client.owner(before) == 0
after = client.allocate(pool, 1000)
client.free_any(before)
client.free_any(after)
print(client.get_stats(pool)["misuses"])
"""
    assert run(run_python, optional, hidden + late) == "0\n"


def test_a_broken_rtpool_is_not_an_absent_one(tmp_path: Path, run_python: Any) -> None:
    optional = build_module(HERE / "client.c", tmp_path, "-DCLIENT_CAN_DO_WITHOUT")
    (tmp_path / "rtpool.py").write_text("import there_is_no_such_module\n")
    assert "there_is_no_such_module" in run(run_python, optional, IMPORT)
