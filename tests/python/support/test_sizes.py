"""Sizes are whole bytes or text with a unit; everything else is refused with a text that helps."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpool import _core
from rtpool._support.sizes import ADDRESS_SPACE, format_size, parse_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (4096, 4096),
        (np.int32(7), 7),
        (np.uint64(1 << 40), 1 << 40),
        ("4096", 4096),
        ("12 B", 12),
        ("64 KiB", 64 << 10),
        ("256MiB", 256 << 20),
        ("1.5 GiB", 3 << 29),
        ("0.5TiB", 1 << 39),
        ("64k", 64 << 10),
        ("2M", 2 << 20),
        ("3 g", 3 << 30),
        ("10 kB", 10_000),
        ("10 MB", 10_000_000),
        ("1GB", 1_000_000_000),
        ("  8  mib ", 8 << 20),
        ("0.1 KiB", 102),
        ("0.30000000000000000000001 B", 0),
    ],
)
def test_sizes_are_read(value: object, size: int) -> None:
    assert parse_size(value) == size


def test_a_share_of_physical_memory() -> None:
    memory = _core.physical_memory()
    assert memory > 64 << 20
    assert parse_size("25%") == memory // 4
    assert parse_size("12.5 %") == memory // 8


@pytest.mark.parametrize("value", [True, False, np.True_, 1.5, float("nan"), None, b"64 KiB", [1], np.array([1, 2])])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="arena must be"):
        parse_size(value, "arena")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "KiB",
        "12 XB",
        "1e9",
        "-5",
        "+5",
        "1_000",
        "nan",
        "inf",
        "1..5 MiB",
        "1.5.2",
        "0x10",
        "٣ KiB",
        "5 %%",
        "1,5 GiB",
    ],
)
def test_other_text_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="arena .* KiB"):
        parse_size(value, "arena")


@pytest.mark.parametrize("value", [-1, -(1 << 70)])
def test_negative_sizes_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="size must not be negative"):
        parse_size(value)


@pytest.mark.parametrize("value", [ADDRESS_SPACE, 1 << 64, 1 << 200, "128 TiB", "999999999999 TiB", "9" * 30])
def test_absurd_sizes_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="address space"):
        parse_size(value)


def test_endless_digits_are_refused() -> None:
    with pytest.raises(ValueError, match="more digits"):
        parse_size("1" * 5000)


@given(st.integers(0, ADDRESS_SPACE - 1))
def test_whole_bytes_are_taken_as_they_are(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == parse_size(f"{size} B") == size


@given(st.integers(-(1 << 50), 1 << 50))
def test_formatted_sizes_are_short_and_close(size: int) -> None:
    text = format_size(size)
    assert len(text) <= 11
    if size >= 0 and size < ADDRESS_SPACE >> 1:
        assert abs(parse_size(text) - size) <= max(size * 0.06, 0)


@given(st.text(max_size=12))
def test_any_text_gives_a_size_or_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_size(text) < ADDRESS_SPACE
