"""Figures as text."""

from collections.abc import Iterable, Sequence


def columns(rows: Iterable[Sequence[str]], *, left: int = 0, gap: int = 2) -> list[str]:
    """Lay cells out in columns, the first `left` columns flush left and the others flush right."""
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        (" " * gap)
        .join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        .rstrip()
        for line in lines
    ]
