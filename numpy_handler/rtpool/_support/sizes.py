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


def format_size(size: int) -> str:
    """Give a size in the largest binary unit that leaves at least 1, with one digit behind the point if needed.

    Examples
    --------
    >>> format_size(65536), format_size(1610612736), format_size(100), format_size(-2048)
    ('64 KiB', '1.5 GiB', '100 B', '-2 KiB')
    """
    sign, value = ("-", -size) if size < 0 else ("", size)
    if value < 1024:
        return f"{sign}{value} B"
    exponent = min((value.bit_length() - 1) // 10, 4)
    scaled = value / (1 << 10 * exponent)
    if scaled >= 1023.95 and exponent < 4:
        exponent, scaled = exponent + 1, scaled / 1024
    return f"{sign}{scaled:.1f}".replace(".0", "") + f" {'KMGT'[exponent - 1]}iB"
