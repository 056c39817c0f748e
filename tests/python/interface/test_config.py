"""Finding the headers: get_include, rtpool-config, pkg-config, Meson; and what is installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from clients import HERE, need, tools

import rtpool
from rtpool._interface import config

PACKAGE = Path(rtpool.__file__).parent


def run(*command: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=tools() | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rtpool_config(*arguments: str) -> str:
    command = Path(sysconfig.get_path("scripts")) / "rtpool-config"
    assert command.exists(), "the command comes with the package"
    done = run(command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def test_the_files_are_installed() -> None:
    names = ["include/rtpool/rtpool.h", "include/rtpool/rtpool.hpp", "__init__.pxd", "pkgconfig/rtpool.pc"]
    assert [name for name in names if not (PACKAGE / name).is_file()] == []
    assert rtpool.get_include() == str(PACKAGE / "include")


def test_the_command() -> None:
    assert rtpool_config("--cflags") == rtpool_config("--includes") == f"-I{PACKAGE / 'include'}"
    assert rtpool_config("--includedir") == rtpool.get_include()
    assert rtpool_config("--pkgconfigdir") == str(PACKAGE / "pkgconfig")
    assert rtpool_config("--version") == rtpool.__version__
    assert rtpool_config("--cflags", "--pkgconfigdir").split() == [
        f"-I{PACKAGE / 'include'}",
        str(PACKAGE / "pkgconfig"),
    ]
    assert "--cflags" in rtpool_config("--help")


def test_the_command_says_what_it_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main([]) == 2
    assert "--pkgconfigdir" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        config.main(["--libs"])
    assert wrong.value.code == 2


def test_a_path_with_a_blank_is_quoted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(config, "_PACKAGE", Path("/a b/rtpool"))
    assert config.main(["--cflags"]) == 0
    assert capsys.readouterr().out == "'-I/a b/rtpool/include'\n"


def test_pkg_config() -> None:
    program = need("pkg-config", "on Debian and Ubuntu: apt-get install pkg-config")
    where = {"PKG_CONFIG_PATH": rtpool_config("--pkgconfigdir")}
    done = run(program, "--cflags", "rtpool", **where)
    assert done.returncode == 0, done.stderr
    (flag,) = done.stdout.split()
    assert Path(flag.removeprefix("-I")).resolve() == Path(rtpool.get_include()).resolve()
    assert run(program, "--modversion", "rtpool", **where).stdout.strip() == rtpool.__version__
    assert run(program, "--libs", "rtpool", **where).stdout.strip() == ""


def test_pkg_config_takes_a_path_with_a_blank(tmp_path: Path) -> None:
    program = need("pkg-config", "on Debian and Ubuntu: apt-get install pkg-config")
    folder = tmp_path / "a b" / "rtpool"
    shutil.copytree(PACKAGE / "pkgconfig", folder / "pkgconfig")
    done = run(program, "--cflags", "rtpool", PKG_CONFIG_PATH=str(folder / "pkgconfig"))
    assert done.returncode == 0, done.stderr
    (flag,) = shlex.split(done.stdout)
    assert Path(flag.removeprefix("-I")).resolve() == (folder / "include").resolve()


def test_pkgconf_of_pypi_finds_it_by_itself() -> None:
    program = need("pkgconf-pypi", "pip install pkgconf")
    done = run(program, "--cflags", "rtpool")
    assert done.returncode == 0 and str(PACKAGE) in done.stdout, done.stdout + done.stderr


PAGE = Path(__file__).parents[3] / "docs" / "howto" / "extensions.md"
MESON = """
project('found', 'c', meson_version: '>=1.2')
rtpool = dependency('rtpool', version: '>=0.2')
py = import('python').find_installation(pure: false)
py.extension_module('client', 'client.c', dependencies: [rtpool, dependency('threads')])
"""


@pytest.mark.parametrize("way", ["environment", "option", "command"])
def test_meson_finds_it(way: str, tmp_path: Path) -> None:
    """By PKG_CONFIG_PATH, by an option, and by `rtpool-config` as the page says of builds by pip."""
    meson = need("meson", "pip install meson ninja")
    ninja = need("ninja", "pip install ninja")
    need("pkg-config", "on Debian and Ubuntu: apt-get install pkg-config")
    on_the_page = re.search(r"^```meson\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert on_the_page is not None
    (tmp_path / "meson.build").write_text(on_the_page[1] if way == "command" else MESON, encoding="utf-8")
    (tmp_path / "client.c").write_text((HERE / "client.c").read_text(encoding="utf-8"), encoding="utf-8")
    folder = rtpool_config("--pkgconfigdir")
    environment = {"PKG_CONFIG_PATH": folder} if way == "environment" else {}
    options = [f"-Dpkg_config_path={folder}"] if way == "option" else []
    done = run(meson, "setup", "build", *options, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = f"YES {rtpool.__version__}" if way != "command" else "NO"
    assert f"Run-time dependency rtpool found: {found}" in done.stdout, done.stdout
    if way == "option":
        return
    done = run(ninja, "-C", "build", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import client; assert client.found and client.default_pool()"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(tmp_path / "build"))
    assert done.returncode == 0, done.stderr
