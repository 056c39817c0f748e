"""The headers by themselves: every standard they are for, no Python in the core, and the way back to malloc."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from c_modules import STRICT, compile_with, compiler
from clients import NOW, build_program

PYTHON = f"-isystem{sysconfig.get_path('include')}"
C = ["c99", "c11", "c17", "gnu99", "gnu17"]
CPP = ["c++17", "c++20", "c++23", "gnu++17"]
COMPILERS = ["cc", "clang"]


@functools.cache
def lacking(program: str, standard: str) -> str:
    """Why a compiler cannot take part, or nothing."""
    if shutil.which(program) is None:
        return f"no {program}"
    language = "-xc++" if "++" in standard else "-xc"
    if compile_with([program], f"-std={standard}", "-E", language, "/dev/null").returncode != 0:
        return f"this {program} knows no {standard}"
    return ""


def compile_header(command: str, standard: str, text: str, folder: Path, *flags: str) -> None:
    cxx = "++" in standard
    program = {"cc": "c++" if cxx else "cc", "clang": "clang++" if cxx else "clang"}[command]
    if reason := lacking(program, standard):
        pytest.skip(reason)
    source = folder / ("source.cpp" if cxx else "source.c")
    source.write_text(text, encoding="utf-8")
    strict = [*STRICT, "-Wconversion", "-Wcast-qual", "-Wundef"]
    done = compile_with(
        [program], f"-std={standard}", *strict, *flags, f"-I{NOW}", "-c", source, "-o", folder / "object"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMPILERS)
@pytest.mark.parametrize("standard", [*C, *CPP])
def test_the_c_header_compiles_without_a_warning(command: str, standard: str, tmp_path: Path) -> None:
    text = "#include <rtpool/rtpool.h>\n#ifdef Py_PYTHON_H\n#error Python\n#endif\n"
    compile_header(command, standard, text, tmp_path)
    compile_header(command, standard, f"#include <Python.h>\n{text.splitlines()[0]}\n", tmp_path, PYTHON)
    compile_header(
        command,
        standard,
        f"#define RTPOOL_WITH_PYTHON\n{text.splitlines()[0]}\nint (*f)(void) = rtpool_import;\n",
        tmp_path,
        PYTHON,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", COMPILERS)
@pytest.mark.parametrize("standard", CPP)
def test_the_cpp_header_compiles_without_a_warning(command: str, standard: str, tmp_path: Path) -> None:
    use = "#include <rtpool/rtpool.hpp>\n#include <vector>\n"
    use += "std::vector<int, rtpool::allocator<int>> vector;\nrtpool::memory_resource resource;\n"
    compile_header(command, standard, use, tmp_path)
    # Both at once: no line of the header depends on both.
    other = ["-fno-exceptions", "-fno-rtti", PYTHON]
    compile_header(command, standard, f"#include <Python.h>\n{use}", tmp_path, *other)


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 15),
    reason="free-threaded Python has no limited API before 3.15",
)
@pytest.mark.parametrize("command", COMPILERS)
def test_the_python_part_is_in_the_limited_api(command: str, tmp_path: Path) -> None:
    text = "#define Py_LIMITED_API 0x030A0000\n#include <Python.h>\n#include <rtpool/rtpool.h>\n"
    compile_header(command, "c99", text, tmp_path, PYTHON)


def test_python_may_come_after_the_header_was_included_once(tmp_path: Path) -> None:
    text = (
        "#include <rtpool/rtpool.h>\n#include <Python.h>\n#include <rtpool/rtpool.h>\nint (*f)(void) = rtpool_import;\n"
    )
    compile_header("cc", "c11", text, tmp_path, PYTHON)


PROGRAM = """
#include <assert.h>
#include <rtpool/rtpool.h>

int main(void) {
  rtpool_stats stats;
  char *block = (char *)rtpool_allocate_zeroed(rtpool_default_pool(), 100);
  assert(rtpool_table() == NULL && rtpool_current_pool() == NULL && rtpool_active_pool() == NULL);
  assert(block != NULL && block[99] == 0 && rtpool_owner(block) == NULL);
  block = (char *)rtpool_resize(NULL, block, 1000);
  rtpool_free(block, 1000);
  rtpool_release(NULL, rtpool_allocate(NULL, 0), 0);
  assert(rtpool_get_stats(NULL, &stats) == 0 && stats.hits == 0);
  assert(rtpool_retain_pool(NULL) == NULL);
  rtpool_release_pool(NULL);
  return rtpool_use(NULL) == -1 ? 0 : 1;
}
"""


def need(flags: list[str], folder: Path) -> None:
    """Skips the test where the compiler makes no program with these: zig's has no address sanitizer."""
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n", encoding="utf-8")
    if compile_with(compiler(), *flags, source, "-o", folder / "empty").returncode != 0:
        pytest.skip(f"this compiler makes no program with {' '.join(flags)}")


# One at a time: zig takes both together, and leaves the one out of which it has no library.
@pytest.mark.parametrize(
    "flags",
    [[], ["-fsanitize=address"], ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]],
    ids=["plain", "address", "undefined"],
)
def test_a_program_without_python_and_rtpool_uses_malloc(flags: list[str], tmp_path: Path) -> None:
    need(flags, tmp_path)
    source = tmp_path / "program.c"
    source.write_text(PROGRAM, encoding="utf-8")
    assert subprocess.run([build_program(source, tmp_path, *flags)], timeout=60, check=False).returncode == 0


def test_all_files_of_a_client_have_one_table(tmp_path: Path) -> None:
    """In C and in C++, linked into one program; another one has its own."""
    (tmp_path / "one.c").write_text(
        "#include <rtpool/rtpool.h>\nint use(const rtpool_api *api);\n"
        "int use(const rtpool_api *api) { return rtpool_use(api); }\n"
    )
    (tmp_path / "two.cpp").write_text(
        '#include <rtpool/rtpool.hpp>\nextern "C" int use(const rtpool_api*);\n'
        "int main() {\n  rtpool_api api{};\n  api.abi = RTPOOL_ABI;\n  api.size = sizeof api;\n"
        "  return use(&api) == 0 && rtpool_table() == &api ? 0 : 1;\n}\n"
    )
    one = compile_with(compiler(), "-std=c99", *STRICT, f"-I{NOW}", "-c", tmp_path / "one.c", "-o", tmp_path / "one.o")
    assert one.returncode == 0, one.stderr
    command = [*compiler(cxx=True), "-std=c++17", *STRICT, f"-I{NOW}"]
    linked = compile_with(command, tmp_path / "two.cpp", tmp_path / "one.o", "-o", tmp_path / "both")
    assert linked.returncode == 0, linked.stderr
    assert subprocess.run([tmp_path / "both"], timeout=60, check=False).returncode == 0
