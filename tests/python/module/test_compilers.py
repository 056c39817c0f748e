"""How tests/compilers finds the compilers of another system, and fetches what it lacks: scripts play the system."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ROOT / "tests" / "compilers" / "run.py"

APT_GET = """echo "$*" >>{root}/asked
[ "$1" = install ] || exit 0
for package; do :; done
made={root}/$(echo "$package" | sed 's/^clang/clang++/')
printf '#!/bin/sh\\necho "x (Debian) 9.1.0"\\n' >"$made"
chmod +x "$made"
"""

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="the sources are not here")


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests")  # again as it was afterwards
    spec = importlib.util.spec_from_file_location("compilers_run", COMMAND)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compilers_run", module)
    spec.loader.exec_module(module)
    return module


class Scripts:
    """A system of scripts: compilers that tell their versions, and an apt-get that makes those it is asked for."""

    name = "Scripts"

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, root / "asked"
        self.asked.touch()
        self.script("apt-get", APT_GET.format(root=root))

    def script(self, name: str, text: str) -> None:
        (self.root / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.root / name).chmod(0o755)

    def compiler(self, name: str, said: str) -> None:
        self.script(name, f'echo "{said}"')

    def command(self, *parts: object) -> list[str]:
        return ["env", f"PATH={self.root}:/usr/bin:/bin", str(self.root / str(parts[0])), *map(str, parts[1:])]

    def installed(self) -> list[str]:
        return [line.split()[-1] for line in self.asked.read_text().splitlines() if line.startswith("install")]


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


def test_what_is_there_is_not_fetched(compilers: ModuleType, scripts: Scripts) -> None:
    scripts.compiler("g++", "g++ (Debian 16.1.0-2) 16.1.0")
    scripts.compiler("clang++", "Debian clang version 21.1.8 (3)")
    (scripts.root / "usr/include/gtest").mkdir(parents=True)
    (scripts.root / "usr/include/gtest/gtest.h").touch()
    found = compilers.there(scripts, ["g++", "clang++"], [])
    assert [(each.name, each.program) for each in found] == [("g++-16", "g++"), ("clang++-21", "clang++")]
    assert scripts.asked.read_text() == "", "nothing was missing, and lists of packages are not asked for either"


def test_what_is_missing_is_fetched(compilers: ModuleType, scripts: Scripts) -> None:
    scripts.compiler("g++", "g++ (Debian 16.1.0-2) 16.1.0")
    found = compilers.there(scripts, ["g++"], ["g++-9"])
    assert [each.name for each in found] == ["g++-16", "g++-9"]
    assert scripts.installed() == ["g++-9", "libgtest-dev"]


def test_a_compiler_that_cannot_be_had_keeps_no_other_out(compilers: ModuleType, scripts: Scripts) -> None:
    scripts.script("apt-get", "exit 100")
    scripts.compiler("g++", "g++ (Debian 16.1.0-2) 16.1.0")
    assert [each.name for each in compilers.there(scripts, ["g++", "clang++"], [])] == ["g++-16"]


def test_a_warning_is_of_the_last_time_that_a_file_was_compiled(compilers: ModuleType) -> None:
    first, second = (f"../../../src/{name}.cpp:3:5: warning: what is it" for name in ("a", "b"))
    log = f"[1/2] Compiling a.o\n{first}\n[2/2] Compiling b.o\n{second}\n{second}\n"
    assert compilers.warnings(log) == [f"src/{name}.cpp:3:5: warning: what is it" for name in ("a", "b")]
    again = f"{log}$ ninja -C there\n[1/2] Compiling a.o\n[2/2] Linking it\n"
    assert compilers.warnings(again) == ["src/b.cpp:3:5: warning: what is it"]
