"""What tables are made of: a row a case and a column a contestant, or a column a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .. import names
from ..data import NAMES, in_order


class Table(NamedTuple):
    """Rows under a head; the first cell of a row names it."""

    head: list[str]
    rows: list[list[str]]


Data = Mapping[str, Any]


def grid(corner: str, cases: Mapping[str, str], who: list[str], cell: Callable[[str, str], str]) -> Table:
    """A row a case, a column a contestant."""
    body = [[title, *(cell(case, name) for name in who)] for case, title in cases.items()]
    return Table([corner, *(NAMES.get(name, name) for name in who)], body)


def columns(found: Iterable[Any], *made: tuple[str, Callable[[Any], str]]) -> Table:
    """A row for each of what was found; a column is its title and what makes its cells."""
    return Table([title for title, _ in made], [[cell(one) for _, cell in made] for one in found])


def contestants(data: Data, *left_out: str) -> list[str]:
    """Those who have rows, in their order."""
    return [name for name in in_order(row["contestant"] for row in data["rows"]) if name not in left_out]


def cases_of(data: Data) -> dict[str, str]:
    """The cases that have rows, and what people call them."""
    return {row["case"]: names.case(row["case"]) for row in data["rows"]}
