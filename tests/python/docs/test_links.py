"""Links between the documents of the repository lead somewhere, also to the heading that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LEFT_OUT = {"build", ".venv", "venv", "shared", "node_modules", ".git"}
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not LEFT_OUT & set(path.relative_to(ROOT).parts))
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def without_code(path: Path) -> str:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(path: Path) -> set[str]:
    """The headings as they are named in links."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents(document: Path) -> None:
    for link in LINK.findall(without_code(document)):
        if re.match(r"\w+:", link):
            continue  # another site: `python3 docs/build.py --linkcheck`
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("index", sorted((ROOT / "docs").glob("*/index.md")), ids=lambda path: path.parent.name)
def test_every_page_stands_once_in_its_index(index: Path) -> None:
    trees = re.findall(r"^:::\{toctree\}\n(.*?)^:::$", index.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    listed = [name for tree in trees for name in re.findall(r"^([\w-]+)$", tree, re.MULTILINE)]
    assert sorted(listed) == sorted(page.stem for page in index.parent.glob("*.md") if page != index)
