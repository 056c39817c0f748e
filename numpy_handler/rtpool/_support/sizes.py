"""Sizes: whole bytes, or text with a unit."""

import operator
import re
from typing import SupportsIndex

import numpy as np

from .. import _core

Size = SupportsIndex | str

ADDRESS_SPACE = 1 << 47

_SHAPE = r"\s*(?P<whole>\d+)(?:\.(?P<part>\d+))?\s*(?P<unit>[a-zA-Z]*|%)\s*"

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power

_HELP = 'write whole bytes, or text such as "64 KiB", "256MiB", "1.5 GiB" or "25%" (of physical memory)'


def parse_size(value: Size, name: str = "size") -> int:
    """Turn a size as users write it into bytes.

    Parameters
    ----------
    value : int or str
        Whole bytes, or a number with a unit: ``"B"``; binary ``"KiB"``, ``"MiB"``, ``"GiB"``, ``"TiB"``, for which the
        bare letters ``"K"``, ``"M"``, ``"G"``, ``"T"`` also stand, as in ``ulimit`` and ``dd``; decimal ``"kB"``,
        ``"MB"``, ``"GB"``, ``"TB"``; ``"%"`` of physical memory. Case and the space before the unit do not matter; text
        without a unit is bytes. What is left of a byte is cut off.
    name : str
        What the size is for, for the error text.

    Returns
    -------
    int
        Bytes, at least 0 and less than the address space (128 TiB).

    Raises
    ------
    TypeError
        For ``bool``, ``float`` and everything else that is neither an integer nor text.
    ValueError
        For text that is no size, negative sizes, and sizes beyond the address space.

    Examples
    --------
    >>> parse_size("64 KiB"), parse_size("1.5GiB"), parse_size("10 MB"), parse_size(4096)
    (65536, 1610612736, 10000000, 4096)
    """
    if isinstance(value, str):
        size = _parse_text(value, name)
    elif isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a size, not {value!r}; {_HELP}")
    else:
        try:
            size = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be an int or text, not {type(value).__name__} ({value!r}); {_HELP}") from None
    if size < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    if size >= ADDRESS_SPACE:
        raise ValueError(
            f"{name} of {value!r} is more than the address space of a process has ({format_size(ADDRESS_SPACE)})"
        )
    return size


def _parse_text(text: str, name: str) -> int:
    match = re.fullmatch(_SHAPE, text, re.ASCII)
    if match is None:
        raise ValueError(f"{name} {text!r} is not a size; {_HELP}")
    part = match["part"] or ""
    if len(match["whole"]) + len(part) > 40:
        raise ValueError(f"{name} {text!r} has more digits than a size needs; {_HELP}")
    number: int = int(match["whole"] + part)
    scale: int = 10 ** len(part)
    unit = match["unit"].lower()
    if unit == "%":
        memory = _core.physical_memory()
        if memory == 0:
            raise ValueError(f"{name} {text!r}: this system does not tell its physical memory; write bytes")
        return number * memory // (100 * scale)
    if unit not in _UNITS:
        raise ValueError(f"{name} {text!r} has the unknown unit {match['unit']!r}; {_HELP}")
    return number * _UNITS[unit] // scale


def as_given(value: Size) -> str:
    """Give a size back as its user wrote it: text as it is, numbers as bytes.

    Examples
    --------
    >>> as_given(" 1.5GiB"), as_given("25%"), as_given(1_000_000)
    ('1.5GiB', '25%', '1,000,000 bytes')
    """
    return value.strip() if isinstance(value, str) else f"{operator.index(value):,} bytes"


def comes_out_in_decimals(size: int) -> bool:
    """Whether a size is written short in decimal units and not in binary ones, as one that was given in them.

    Examples
    --------
    >>> comes_out_in_decimals(200_000_000), comes_out_in_decimals(200 << 20), comes_out_in_decimals(12_345)
    (True, False, False)
    """

    def short(base: int) -> bool:
        unit = 1
        while size >= unit * base:
            unit *= base
        return unit > 1 and 10 * size % unit == 0

    return short(1000) and not short(1024)


def format_size(size: int, decimal: bool = False) -> str:
    """Give a size in the largest unit that leaves at least 1, binary or decimal; one digit behind the point if needed.

    Examples
    --------
    >>> format_size(65536), format_size(1610612736), format_size(100), format_size(-2048)
    ('64 KiB', '1.5 GiB', '100 B', '-2 KiB')
    >>> format_size(200_000_000, decimal=True)
    '200 MB'
    """
    base, names = (1000, ("kB", "MB", "GB", "TB")) if decimal else (1024, ("KiB", "MiB", "GiB", "TiB"))
    sign, value = ("-", -size) if size < 0 else ("", size)
    if value < base:
        return f"{sign}{value} B"
    exponent, unit = 1, base
    while exponent < 4 and value / unit >= base - 0.05:
        exponent, unit = exponent + 1, unit * base
    return f"{sign}{value / unit:.1f}".replace(".0", "") + f" {names[exponent - 1]}"
