"""What tests/wheel holds against a wheel before it is uploaded; wheels made here for the purpose."""

from __future__ import annotations

import importlib
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from rtpool import _core

ROOT = Path(__file__).resolve().parents[3]
LOOKED_FOR = "a module that those who choose the wheel look for"
PROCESSORS = "a module for the wheel's processors"
STORAGE = "thread-local storage that its libc has"

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf; Debian: apt-get install binutils")


def module(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """One of tests/wheel."""
    if not (ROOT / "tests" / "wheel" / f"{name}.py").exists():
        pytest.skip("the sources are not here")
    monkeypatch.syspath_prepend(ROOT / "tests" / "wheel")
    for each in (name, "targets"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return importlib.import_module(name)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module(monkeypatch, "checks")


def failed(checks: ModuleType, folder: Path, name: str, module: str) -> set[str]:
    """What does not hold of a wheel of that name with this module in it."""
    wheel = folder / name
    with zipfile.ZipFile(wheel, "w") as file:
        file.write(_core.__file__, f"rtpool/{module}")
    return {what for what, true, _ in checks.of_wheel(wheel, folder / "unpacked") if not true}


@pytest.mark.parametrize(
    ("tags", "module"),
    [
        ("cp313-cp313-manylinux_2_28_x86_64", "_core.cpython-313-x86_64-linux-gnu.so"),
        ("cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64", "_core.cpython-313-x86_64-linux-gnu.so"),
        ("cp314-cp314t-manylinux_2_28_x86_64", "_core.cpython-314t-x86_64-linux-gnu.so"),
        ("cp310-cp310-musllinux_1_2_x86_64", "_core.cpython-310-x86_64-linux-gnu.so"),
        ("cp311-cp311-musllinux_1_2_x86_64", "_core.cpython-311-x86_64-linux-musl.so"),
        ("cp313-cp313-manylinux_2_28_aarch64", "_core.cpython-313-aarch64-linux-gnu.so"),
        ("cp313-cp313-musllinux_1_2_aarch64", "_core.cpython-313-aarch64-linux-musl.so"),
    ],
)
def test_modules_have_the_name_that_is_looked_for(checks: ModuleType, tmp_path: Path, tags: str, module: str) -> None:
    assert LOOKED_FOR not in failed(checks, tmp_path, f"rtpool-0.2.0-{tags}.whl", module)


@pytest.mark.parametrize(
    ("tags", "module"),
    [
        ("cp313-cp313-manylinux_2_28_aarch64", "_core.cpython-313-x86_64-linux-gnu.so"),
        ("cp313-cp313-musllinux_1_2_x86_64", "_core.cpython-313-x86_64-linux-gnu.so"),
        ("cp314-cp314-manylinux_2_28_x86_64", "_core.cpython-313-x86_64-linux-gnu.so"),
        ("cp314-cp314t-manylinux_2_28_x86_64", "_core.cpython-314-x86_64-linux-gnu.so"),
    ],
)
def test_modules_of_another_name_are_found(checks: ModuleType, tmp_path: Path, tags: str, module: str) -> None:
    assert LOOKED_FOR in failed(checks, tmp_path, f"rtpool-0.2.0-{tags}.whl", module)


def test_modules_of_another_processor_are_found(checks: ModuleType, tmp_path: Path) -> None:
    found = [
        PROCESSORS in failed(checks, tmp_path, f"rtpool-0.2.0-cp313-cp313-manylinux_2_28_{each}.whl", "_core.so")
        for each in ("x86_64", "aarch64")
    ]
    assert sorted(found) == [False, True]


def test_thread_local_storage_that_musl_refuses_is_found(checks: ModuleType, tmp_path: Path) -> None:
    """A module made for glibc reaches it by one instruction."""
    if "STATIC_TLS" not in checks.output("readelf", "--dynamic", "--wide", _core.__file__):
        pytest.skip("not a module for glibc")
    found = {
        libc: STORAGE in failed(checks, tmp_path, f"rtpool-0.2.0-cp313-cp313-{libc}_x86_64.whl", "_core.so")
        for libc in ("manylinux_2_28", "musllinux_1_2")
    }
    assert found == {"manylinux_2_28": False, "musllinux_1_2": True}


# `gettid` came with glibc 2.30 and musl 1.2.2: linked for glibc 2.28 it has no version.
SYMBOLS = """
Symbol table '.dynsym' contains 7 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND mmap{version}
     2: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND PyLong_AsLong
     3: 0000000000000000     0 OBJECT  GLOBAL DEFAULT  UND _Py_NoneStruct
     4: 0000000000000000     0 NOTYPE  WEAK   DEFAULT  UND __gmon_start__
     5: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND {name}
     6: 000000000004a0d0   128 FUNC    GLOBAL DEFAULT   12 PyInit__core
"""


@pytest.mark.parametrize(("musl", "version"), [(False, "@GLIBC_2.2.5 (2)"), (True, "")])
def test_functions_that_older_libcs_lack_are_found(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch, musl: bool, version: str
) -> None:
    said = ""
    monkeypatch.setattr(checks, "output", lambda *_: said)
    said = SYMBOLS.format(name="gettid", version=version)
    assert checks.of_newer_libc(Path("_core.so"), musl) == {"gettid"}
    said = SYMBOLS.format(name="PyErr_Occurred", version=version)
    assert checks.of_newer_libc(Path("_core.so"), musl) == set()
    assert checks.symbols(Path("_core.so"))[0] == {"PyInit__core"}


def test_this_module_takes_from_libc_what_has_a_version(checks: ModuleType) -> None:
    """Of glibc; the names of others begin otherwise."""
    if "libc.so.6" not in checks.needed(Path(_core.__file__)):
        pytest.skip("not a module for glibc")
    assert not checks.of_newer_libc(Path(_core.__file__), musl=False)


def test_headers_of_a_debian_are_found_for_each_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where pyconfig.h includes one of the architecture, which lies where only compilers of that system look."""
    build_one = module(monkeypatch, "build_one")
    include = tmp_path / "include" / "python3.14"
    include.mkdir(parents=True)
    values = {"include": str(include), "MULTIARCH": "x86_64-linux-gnu"}
    monkeypatch.setattr(build_one.sysconfig, "get_path", values.get)
    monkeypatch.setattr(build_one.sysconfig, "get_config_var", values.get)
    target = build_one.TARGETS["musllinux_1_2_aarch64"]
    assert build_one.headers_elsewhere(target, tmp_path / "work") == []
    of_debian = tmp_path / "include" / "x86_64-linux-gnu" / "python3.14" / "pyconfig.h"
    of_debian.parent.mkdir(parents=True)
    of_debian.write_text("#define SIZEOF_LONG 8\n", encoding="utf-8")
    (folder,) = build_one.headers_elsewhere(target, tmp_path / "work")
    found = folder / "aarch64-linux-gnu" / "python3.14" / "pyconfig.h"
    assert found.read_text(encoding="utf-8") == of_debian.read_text(encoding="utf-8")
    cross = target.write_cross_file(tmp_path / "cross.ini", tmp_path / "zig", [folder]).read_text(encoding="utf-8")
    assert f"'-isystem{folder}'" in cross
    values["MULTIARCH"] = ""  # of Pythons that are nobody's package
    assert build_one.headers_elsewhere(target, tmp_path / "other") == []


def archive_with(place: Path, **files: str) -> Path:
    """A source archive of rtpool 1 with a file in each of these folders."""
    with tarfile.open(place, "w:gz") as opened:
        for name, text in files.items():
            file = place.parent / name
            file.write_text(text, encoding="utf-8")
            opened.add(file, f"rtpool-1/{name}/file")
    return place


def test_digests_of_sources_leave_out_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = module(monkeypatch, "release")

    def digest(**files: str) -> str:
        found: str = release.digest_of_sources(archive_with(tmp_path / "rtpool-1.tar.gz", **files))
        return found

    before = digest(src="int x;", docs="old")
    assert digest(src="int x;", docs="new") == before
    assert digest(src="int y;", docs="old") != before
    assert digest(numpy_handler="int x;", docs="old") != before


def test_wheels_stay_as_long_as_their_sources_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside the newest archive, which is what is uploaded with them."""
    release = module(monkeypatch, "release")
    monkeypatch.setattr(release, "WORK", tmp_path)
    monkeypatch.setattr(release, "DIST", tmp_path / "dist")
    report = release.Report()

    def stays(keep: bool, **files: str) -> bool:
        """Whether the wheel of an earlier run lies there after one with this archive, which does."""
        (tmp_path / "files").mkdir(exist_ok=True)
        made = archive_with(tmp_path / "files" / "rtpool-1.tar.gz", **files).read_bytes()

        def tool(*_: object) -> None:
            (tmp_path / "archive").mkdir()
            (tmp_path / "archive" / "rtpool-1.tar.gz").write_bytes(made)

        monkeypatch.setattr(release, "tool", tool)
        final = release.source_archive(Path("python"), report, keep)
        assert final.read_bytes() == made
        wheel = final.with_name("rtpool-1-cp313.whl")
        there: bool = wheel.exists()
        wheel.touch()
        return there

    assert not stays(keep=True, src="int x;", tests="old")
    assert stays(keep=True, src="int x;", tests="new")
    assert not stays(keep=True, src="int y;", tests="new")
    assert not stays(keep=False, src="int y;", tests="new")
