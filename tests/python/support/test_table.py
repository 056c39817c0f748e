"""Columns of figures: as wide as their widest cell, flush right but for those asked to be flush left."""

from __future__ import annotations

import pytest

from rtpool._support.table import columns


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [["", "count", "bytes"], ["small", "12", "64"], ["large", "3", "1,048,576"]]
    assert columns(rows, left=1) == ["       count      bytes", "small     12         64", "large      3  1,048,576"]


def test_nothing_trails() -> None:
    assert columns([["a", ""], ["bb", "x"]], left=2, gap=3) == ["a", "bb   x"]


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        columns([["a", "b"], ["c"]])
