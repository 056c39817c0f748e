"""Folders are rooms with an order: who may include or import whom stands in the READMEs, and nothing else is done.

An include or import counts wherever it stands: at the top, inside a function, or for typing only. A permission that
nobody uses is an error as well, so that what the READMEs say is how it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import rtpool

ROOT = Path(__file__).parents[3]
CORE = ROOT / "src"
BINDING = ROOT / "numpy_handler"
PACKAGE = BINDING / "rtpool"
TESTS = ROOT / "tests" / "python"


def folders(parent: Path, *patterns: str) -> list[Path]:
    """The folders with such files in them."""
    return sorted({path.parent for pattern in patterns for path in parent.glob(f"*/{pattern}")})


BINDING_ROOMS = folders(BINDING, "*.cpp", "*.hpp")
PACKAGE_ROOMS = folders(PACKAGE, "*.py")


# What the READMEs say.


def names_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(readme: Path, first: str) -> Iterator[list[str]]:
    """The rows of the table whose first column has that title."""
    lines = iter(readme.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            next(lines)
            break
    else:
        pytest.fail(f"{readme.relative_to(ROOT)} needs a table that begins with `| {first} |`")
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def permissions(readme: Path, first: str, column: int = 2) -> dict[str, set[str]]:
    """Which rooms each room may use, in the order of the table."""
    return {names_in(cells[0])[0]: set(names_in(cells[column])) for cells in rows(readme, first)}


# What the sources do.


def includes(path: Path) -> list[str]:
    return re.findall(r'(?m)^\s*#\s*include "([^"]+)"', path.read_text(encoding="utf-8"))


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".cpp", ".hpp", ".h"))


def module_name(path: Path) -> str:
    parts = path.relative_to(BINDING).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "__pycache__" not in path.parts}
THERE = {*MODULES, "rtpool._core"}


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports."""
    path, found = MODULES[name], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in THERE}
        elif isinstance(node, ast.ImportFrom):
            parts = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found |= {one for one in (f"{base}.{alias.name}", base) if one in THERE and one != name}
                if f"{base}.{alias.name}" in THERE:
                    found.discard(base)  # the package is only the way to the module
    if name == "rtpool":
        found |= {f"rtpool.{module}" for module in rtpool._LATER.values()}
    return found


def room_of(module: str) -> str:
    """The folder of a module, or the module itself where it stands in none."""
    return module.split(".")[1] if "." in module else module


# Comparing them.


def expect_order(readme: Path, allowed: dict[str, set[str]], uses: dict[str, set[str]]) -> None:
    """Rooms and rows are the same; each room uses what its row says, and that stands above it."""
    where = readme.relative_to(ROOT)
    assert set(allowed) == set(uses), f"rooms and rows of {where} differ: {set(allowed) ^ set(uses)}"
    above: set[str] = set()
    for room, may in allowed.items():
        assert may <= above, f"{where}: `{room}` stands above {may - above}, which it uses"
        assert uses[room] == may, (
            f"{where} lets `{room}` use {sorted(may) or 'nothing'}, it uses {sorted(uses[room]) or 'nothing'}: {where}"
            f" is to be changed, or the code"
        )
        above.add(room)


def expect_no_circle(uses: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def follow(one: str, way: list[str]) -> None:
        assert one not in way, "circle: " + " -> ".join([*way[way.index(one) :], one])
        if one not in done:
            for other in sorted(uses.get(one, ())):
                follow(other, [*way, one])
            done.add(one)

    for one in uses:
        follow(one, [])


def expect_room(room: Path, files: Iterable[str], uses: dict[str, set[str]], said: set[str], title: str) -> None:
    """A room's README lists its files, each below those it uses, and repeats what the room may use."""
    readme = room / "README.md"
    where = readme.relative_to(ROOT)
    assert readme.exists(), f"{where}: a room says in ten lines what it is, its files in their order, and what it uses"
    text = readme.read_text(encoding="utf-8")
    sentence = re.search(rf"^{title}s (.+?)\.$", text, re.MULTILINE)
    assert sentence is not None, f"{where} needs a line '{title}s `...`.'"
    assert set(names_in(sentence[1])) == said, f"{where} says '{sentence[0]}', the README above it {sorted(said)}"
    order = [names_in(cells[0])[0] for cells in rows(readme, "file")]
    assert sorted(order) == sorted(files), f"{where}: files and rows differ: {set(order) ^ set(files)}"
    for name, used in uses.items():
        late = {other for other in used if order.index(other) > order.index(name)}
        assert not late, f"{where}: `{name}` uses {sorted(late)}, which stand below it"


def test_core() -> None:
    readme = CORE / "README.md"
    uses = {
        folder.name: {include.split("/")[0] for path in sources(folder) for include in includes(path)} - {folder.name}
        for folder in sorted({path.parent for path in CORE.glob("*/*.hpp")})
    }
    expect_order(readme, permissions(readme, "folder"), uses)


def _binding_uses(room: Path) -> tuple[set[str], set[str]]:
    """What a room includes of other rooms, and of the core."""
    rooms, core = set(), set()
    for path in sources(room):
        for include in includes(path):
            first, *rest = include.split("/")
            if first == BINDING.name:
                rooms.add(rest[0])
            else:
                assert (CORE / include).exists(), f"{path.relative_to(ROOT)}: {include} is neither ours nor the core's"
                core.add(first)
    return rooms - {room.name}, core


def test_binding() -> None:
    readme = BINDING / "README.md"
    uses = {room.name: _binding_uses(room) for room in BINDING_ROOMS}
    expect_order(readme, permissions(readme, "room"), {name: rooms for name, (rooms, _) in uses.items()})
    assert permissions(readme, "room", column=3) == {name: core for name, (_, core) in uses.items()}


@pytest.mark.parametrize("room", BINDING_ROOMS, ids=lambda room: room.name)
def test_room_of_the_binding(room: Path) -> None:
    uses: dict[str, set[str]] = {}
    for path in sources(room):
        of_own = {
            Path(include).stem for include in includes(path) if include.startswith(f"{BINDING.name}/{room.name}/")
        }
        uses.setdefault(path.stem, set()).update(of_own)
    rooms, core = _binding_uses(room)
    expect_room(room, uses, uses, rooms | core, "Include")


def test_no_circle_of_includes() -> None:
    uses = {}
    for path in [*sources(CORE), *(path for room in BINDING_ROOMS for path in sources(room))]:
        of_own = {CORE / include if (CORE / include).exists() else ROOT / include for include in includes(path)}
        uses[str(path.relative_to(ROOT))] = {str(other.relative_to(ROOT)) for other in of_own}
    expect_no_circle(uses)


def test_package() -> None:
    readme = PACKAGE / "README.md"
    uses: dict[str, set[str]] = {"_core": set()}
    for name in MODULES:
        room = room_of(name)
        uses.setdefault(room, set()).update({room_of(other) for other in imports(name)} - {room})
    expect_order(readme, permissions(readme, "room"), uses)


@pytest.mark.parametrize("room", PACKAGE_ROOMS, ids=lambda room: room.name)
def test_room_of_the_package(room: Path) -> None:
    inside = {name: path for name, path in MODULES.items() if path.parent == room}
    files = {name: path.stem for name, path in inside.items() if path.stem != "__init__"}
    uses = {stem: {files[other] for other in imports(name) if other in files} for name, stem in files.items()}
    said = {room_of(other) for name in inside for other in imports(name)} - {room.name}
    expect_room(room, files.values(), uses, said, "Import")


def test_no_circle_of_imports() -> None:
    expect_no_circle({name: imports(name) for name in MODULES})


def test_the_modules_of_a_room_do_not_hide_their_imports() -> None:
    """Nobody imports by a text, which no test would see; the package and its command line have one place each."""
    by_text = {name for name, path in MODULES.items() if re.search(r"\bimport_module\(|__import__\(", path.read_text())}
    assert by_text <= {"rtpool", "rtpool.cli"}


def test_tests_stand_beside_the_same_name() -> None:
    """Every room has tests; those of pages are named `docs`, or after a folder of it."""
    rooms = {room.name for room in BINDING_ROOMS} | {room.name.lstrip("_") for room in PACKAGE_ROOMS}
    pages = {"docs"} | {path.name for path in (ROOT / "docs").glob("*/")}
    tested = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert rooms <= tested, f"rooms without tests: {rooms - tested}"
    assert tested <= rooms | pages, f"tests without a room: {tested - rooms - pages}"


@pytest.mark.parametrize("readme", [BINDING / "README.md", CORE / "README.md"], ids=["binding", "core"])
def test_the_walks_name_what_there_is(readme: Path) -> None:
    """The sections that follow a call step by step name functions and files, which may move."""
    text = readme.read_text(encoding="utf-8")
    walks = re.findall(r"^## (?:A call|One) .+?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert walks
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources(CORE) + sources(BINDING))
    for name in (name for walk in walks for name in names_in(walk)):
        if "/" in name:
            assert (readme.parent / name).exists(), f"{readme.relative_to(ROOT)} sends the reader to {name}"
        elif re.fullmatch(r"[\w:]+(?:\(\w*\))?", name):
            last = name.split("(")[0].split("::")[-1]
            assert last in code, f"{readme.relative_to(ROOT)} names `{name}`, which is nowhere"


def test_every_room_of_the_package_is_installed_without_byte_code() -> None:
    listed = re.search(r"foreach room : \[(.*?)\]", (BINDING / "meson.build").read_text(), re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == {room.name for room in PACKAGE_ROOMS}
    installed = Path(rtpool.__file__).parent
    missing = [name for name, path in MODULES.items() if not (installed / path.relative_to(PACKAGE)).exists()]
    assert not missing, missing


def test_files_of_tests_have_names_of_their_own() -> None:
    """Pytest imports them by their names alone, and stops where two are the same."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
