"""Figures of the documents come from files of results: none is typed, and no file is left out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
RESULTS = ROOT / "bench" / "results"
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")}

sys.path.insert(0, str(DOCS / "_ext"))
pytest.importorskip("sphinx", reason="sphinx is not installed (pip install rtpool[docs])")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install rtpool[docs])")

from rtpool_results import data, figures, plots, tables  # noqa: E402

ASKED_FOR = [
    (page, kind, name)
    for page, text in PAGES.items()
    for kind, name in re.findall(r"^```\{rtpool-(table|plot)\} (\S+)$", text, re.MULTILINE)
]


def test_every_file_of_results_is_shown() -> None:
    shown = {tables.TABLES[name][0] if kind == "table" else plots.PLOTS[name].result for _, kind, name in ASKED_FOR}
    there = {path.stem for path in RESULTS.glob("*.json")}
    assert there <= shown, f"no page shows {sorted(there - shown)}: add a table or a plot to docs/_ext/rtpool_results"


def test_everything_that_is_drawn_is_shown() -> None:
    assert {name for _, kind, name in ASKED_FOR if kind == "table"} == set(tables.TABLES)
    assert {name for _, kind, name in ASKED_FOR if kind == "plot"} == set(plots.PLOTS)


@pytest.mark.parametrize("name", tables.TABLES)
def test_tables(name: str) -> None:
    file, make = tables.TABLES[name]
    if not (RESULTS / f"{file}.json").exists():
        pytest.skip(f"bench/results/{file}.json is not there")
    made = make(data.load(file))
    assert made.rows
    assert {len(row) for row in made.rows} == {len(made.head)}


@pytest.mark.parametrize("name", plots.PLOTS)
def test_plots_take_their_colours_from_the_page(name: str) -> None:
    file = plots.PLOTS[name].result
    if not (RESULTS / f"{file}.json").exists():
        pytest.skip(f"bench/results/{file}.json is not there")
    drawn = plots.svg(name, data.load(file))
    assert 'role="img"' in drawn and "var(--rt-ink)" in drawn
    style = (DOCS / "_static" / "rtpool.css").read_text(encoding="utf-8")
    for variable in set(re.findall(r"var\((--rt-[\w-]+)\)", drawn)):
        assert style.count(f"{variable}:") == 2, f"{variable} needs a colour for light and one for dark"
    assert not re.findall(r"(?:fill|stroke): #(?!ffffff)", drawn), "a colour that is the same in light and dark"


@pytest.mark.parametrize(
    "text", sorted({text for page in PAGES.values() for text in re.findall(r"\{figure\}`([^`]+)`", page)})
)
def test_figures_of_the_text(text: str) -> None:
    assert re.search(r"\d", figures.figure(text))


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(data.Missing, match="bench/results/nowhere.json is not there"):
        data.load("nowhere")
    with pytest.raises(data.Missing, match="no figure is called"):
        figures.figure("nothing")


# A measured time or ratio in the prose of a page. Periods, sizes and limits that a program is given are code.
MEASURED = re.compile(r"(?<![\w.-])\d[\d.,]* ?(?:ns|us|µs|ms|MB/s|GB/s|times as fast|times NumPy)\b")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_figure_is_typed(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`]*`", "", prose)
    found = MEASURED.findall(prose)
    assert not found, f"{page}: {found}: use a {{figure}}, a table or a plot made of bench/results"


def readme_table() -> list[str]:
    """What README.md shows of the results."""
    convert: Any = data.load("convert")
    cases = {
        "two_lines:100000": "`t = a.astype(float); t / 255.0`, 1e5 values",
        "two_lines:1000000": "the same, 1e6 values",
        "two_lines:10000000": "the same, 1e7 values",
        "two_lines:100000000": "the same, 1e8 values",
        "frames:1080": "1080p frame pipeline",
    }
    who = ("numpy", "jemalloc", "tcmalloc", "mimalloc", "rtpool", "out")
    rows = []
    for case, title in cases.items():
        cells = []
        for name in who:
            row = data.one(convert, case=case, contestant=name)
            faults = f" [{data.count(row['faults'])}]" if row["faults"] >= 0.5 or name in ("numpy", "rtpool") else ""
            cells.append(data.seconds(row["median"]).replace("µs", "us") + faults)
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def test_the_figures_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in readme_table():
        assert row in text, "README.md should say:\n" + "\n".join(readme_table())
    for name in ("rtpool-active", "tcmalloc", "mimalloc", "jemalloc"):
        assert figures.figure(f"programs-mean {name}") in text
