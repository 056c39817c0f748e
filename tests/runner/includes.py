"""Brace lists that are walked in files without a header that has `std::initializer_list`: GCC 16 does not compile them.

Earlier compilers had it from nearly any header of their own. Which the standard says have it is in HAVE_IT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

USES = re.compile(
    r"\bfor \([^;(){}]*[^;(){}:]:\s*\{"  # for (const int each : {1, 2})
    r"|\bauto\b[&\s\w]*=\s*\{"  # const auto list = {1, 2}
    r"|\bstd::initializer_list\b"
)
HAVE_IT = {"algorithm", "array", "deque", "forward_list", "initializer_list", "list", "map", "queue", "random", "regex",
           "set", "stack", "string", "unordered_map", "unordered_set", "utility", "valarray", "vector",
           "gtest/gtest.h"}  # fmt: skip


def without_comments(text: str) -> str:
    """The code, line by line as it is, with texts empty."""
    return re.sub(r'R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', _blank, text, flags=re.DOTALL)


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n") if found[0].startswith("/") else '""' + "\n" * found[0].count("\n")


def unnamed_lists(text: str, own_header: str = "") -> list[int]:
    """The lines of a source with a brace list whose header neither it nor the header of its name includes."""
    code = without_comments(text)
    if HAVE_IT & set(re.findall(r"(?m)^\s*#\s*include\s*<([^>]+)>", f"{code}\n{without_comments(own_header)}")):
        return []
    return [code.count("\n", 0, use.start()) + 1 for use in USES.finditer(code)]


def sources(root: Path) -> Iterator[Path]:
    for folder in ("src", "numpy_handler", "bench", "examples", "tests"):
        yield from (path for path in sorted((root / folder).rglob("*")) if path.suffix in (".cpp", ".hpp", ".h"))


def missing(root: Path) -> list[str]:
    """What is to be mended in the tree, a line each."""
    found = []
    for path in sources(root):
        header = path.with_suffix(".hpp")
        own_header = header.read_text(encoding="utf-8") if header.exists() else ""
        lines = unnamed_lists(path.read_text(encoding="utf-8"), own_header)
        name = path.relative_to(root)
        found += [f"{name}:{line}: a brace list, and no #include <initializer_list>" for line in lines]
    return found
