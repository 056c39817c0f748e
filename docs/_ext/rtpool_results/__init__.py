"""Tables, plots and figures of pages, made of bench/results when the site is built.

`{rtpool-table} NAME` and `{rtpool-plot} NAME`: what `tables.TABLES` and `plots.PLOTS` hold by that name, with the
machine and the command below it. The role `{figure}` puts one figure into the text (`figures.py`). What is not there is
an error of the build; with the option `:if-there:` the page says instead that it was not measured, and how it is done.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from . import data, figures
from .tables import TABLES, Table


def _literal_or_text(text: str) -> list[nodes.Node]:
    """Text with `code` in it."""
    return [
        nodes.literal(text=part) if number % 2 else nodes.Text(part)
        for number, part in enumerate(text.split("`"))
        if part
    ]


def _table_node(table: Table) -> nodes.Node:
    group = nodes.tgroup(cols=len(table.head))
    group += [nodes.colspec(colwidth=1, stub=number == 0) for number in range(len(table.head))]

    def row(cells: list[str]) -> nodes.row:
        made = nodes.row()
        for cell in cells:
            entry = nodes.entry()
            # Quotation marks in names of calls are code's.
            entry += nodes.paragraph("", "", *_literal_or_text(cell), support_smartquotes=False)
            made += entry
        return made

    head, body = nodes.thead(), nodes.tbody()
    head += row(table.head)
    body += [row(cells) for cells in table.rows]
    group += [head, body]
    return nodes.table("", group, classes=["rtpool-table"])


class _FromResults(SphinxDirective):
    """What both directives do: find the file, make the node, say where it is from."""

    required_arguments: ClassVar[int] = 1
    option_spec: ClassVar[dict[str, Any]] = {"if-there": directives.flag}

    def make(self, name: str, results: Any) -> nodes.Node:
        raise NotImplementedError

    def file_of(self, name: str) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            file = self.file_of(name)
            self.env.note_dependency(str(data.RESULTS / f"{file}.json"))
            if "if-there" in self.options and not (data.RESULTS / f"{file}.json").exists():
                text = f"Not measured yet: no `bench/results/{file}.json`; `bench/README.md` says what makes it."
                return [nodes.note("", nodes.paragraph("", "", *_literal_or_text(text)))]
            results = data.load(file)
            made = self.make(name, results)
        except (data.Missing, KeyError) as error:
            raise self.error(f"{name}: {error}") from error
        source = f"`bench/results/{file}.json`: {data.provenance(results)}"
        return [made, nodes.paragraph("", "", *_literal_or_text(source), classes=["rtpool-source"])]


class ResultTable(_FromResults):
    """A table of `tables`."""

    def file_of(self, name: str) -> str:
        return TABLES[name][0]

    def make(self, name: str, results: Any) -> nodes.Node:
        return _table_node(TABLES[name][1](results))


class ResultPlot(_FromResults):
    """A plot of `plots.py`, as SVG in the page."""

    def file_of(self, name: str) -> str:
        from .plots import PLOTS

        return PLOTS[name].result

    def make(self, name: str, results: Any) -> nodes.Node:
        from . import plots

        text = f'<div class="rtpool-plot">{plots.svg(name, results)}</div>'
        return nodes.raw("", text, format="html")


class Figure(SphinxRole):
    """One figure in the text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        for file in data.RESULTS.glob("*.json"):
            self.env.note_dependency(str(file))
        try:
            return [nodes.Text(figures.figure(self.text))], []
        except data.Missing as error:
            message = self.inliner.reporter.error(f"figure: {error}", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("rtpool-table", ResultTable)
    app.add_directive("rtpool-plot", ResultPlot)
    app.add_role("figure", Figure())
    app.add_css_file("rtpool.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
