"""The style check that finds brace lists without their header, as GCC 16 would."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
WALK = "void f() {\n  for (const int each : {1, 2}) g(each);\n}\n"


@pytest.fixture
def includes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not (ROOT / "tests" / "runner" / "includes.py").exists():
        pytest.skip("the sources are not here")
    monkeypatch.syspath_prepend(ROOT / "tests")
    return importlib.import_module("runner.includes")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (2, WALK),
        (4, f'#include <cstdint>\n#include "pages/pages.hpp"\n{WALK}'),
        (3, f"/* vector\n#include <vector> */{WALK}"),
        (1, "for (Slab* list :\n     {first, second}) walk(list);"),
        (1, "for (const auto& [from, to] : {std::pair<int, int>{1, 2}}) walk(from);"),
        (1, "const auto sizes = {1, 2};"),
        (1, "void f(std::initializer_list<int> sizes);"),
    ],
)
def test_lists_without_their_header_are_found(includes: ModuleType, line: int, text: str) -> None:
    assert includes.unnamed_lists(text)[:1] == [line]


@pytest.mark.parametrize(
    "text",
    [
        f"#include <initializer_list>\n{WALK}",
        f"#include <vector>\n{WALK}",
        f"#include <gtest/gtest.h>\n{WALK}",
        "// for (const int each : {1, 2})\n",
        'print("for (const int each : {1, 2})");',
        "for (const int each : std::array{1, 2}) g(each);",
        "for (int i = 0; i < 3; ++i) { g(condition ? i : 0); }",
        "for (const Level level : Levels{}) { g(level); }",
        "for (int& each : of.everything()) {\n}",
        "Sizes sizes = {1, 2};\nauto call = [&] { return 1; };",
    ],
)
def test_nothing_else_is(includes: ModuleType, text: str) -> None:
    assert includes.unnamed_lists(text) == []


def test_the_header_of_a_source_counts(includes: ModuleType) -> None:
    assert includes.unnamed_lists(f'#include "sizes.hpp"\n{WALK}', "#include <string>\n") == []


def test_no_source_needs_one(includes: ModuleType) -> None:
    assert includes.missing(ROOT) == []
