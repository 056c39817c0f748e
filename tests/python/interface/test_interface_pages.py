"""The C and C++ on the pages of the documentation compiles, without a warning."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest
from c_modules import STRICT, compile_with, compiler
from clients import NOW

DOCS = Path(__file__).parents[3] / "docs"
CODE = re.compile(r"^```(c|cpp)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(language, code, id=f"{page.relative_to(DOCS)}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, (language, code) in enumerate(CODE.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_the_code_compiles(language: str, code: str, tmp_path: Path) -> None:
    cxx = language == "cpp"
    source = tmp_path / f"page.{language}"
    source.write_text(code, encoding="utf-8")
    python = f"-isystem{sysconfig.get_path('include')}"
    standard = "-std=c++17" if cxx else "-std=c99"
    done = compile_with(compiler(cxx), standard, *STRICT, python, f"-I{NOW}", "-c", source, "-o", tmp_path / "page.o")
    assert done.returncode == 0, done.stderr
