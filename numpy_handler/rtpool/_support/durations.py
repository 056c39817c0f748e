"""Durations and periods: seconds, text with a unit, or time deltas."""

from __future__ import annotations

import datetime
import math
import re
from fractions import Fraction
from typing import SupportsFloat

import numpy as np

Duration = SupportsFloat | str | datetime.timedelta

NANOSECONDS = 1_000_000_000
LONGEST = 365 * 24 * 3600  # seconds

# The micro sign and the Greek letter look the same.
_SPANS = {
    "ns": 1, "us": 1000, "\N{MICRO SIGN}s": 1000, "\N{GREEK SMALL LETTER MU}s": 1000, "ms": 1_000_000, "": NANOSECONDS,
    "s": NANOSECONDS, "sec": NANOSECONDS, "min": 60 * NANOSECONDS, "h": 3600 * NANOSECONDS,
}  # fmt: skip
_RATES = {"hz": 1, "khz": 1000, "mhz": 1_000_000}

_NUMBER = r"(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
_SHAPE = re.compile(rf"\s*(?P<number>{_NUMBER})\s*(?P<unit>\D*?)\s*", re.ASCII)

_HELP = 'write seconds (0.005), text such as "5 ms", "500 us"{rate} or "2 s", or a datetime.timedelta'


def parse_duration(value: Duration, name: str = "duration", *, rate: bool = False, zero: bool = False) -> int:
    """Turn a span of time as users write it into nanoseconds.

    Parameters
    ----------
    value : float, str, datetime.timedelta or numpy.timedelta64
        Seconds; or a number with a unit: ``"ns"``, ``"us"`` (also ``"µs"``), ``"ms"``, ``"s"``, ``"min"``, ``"h"``.
        Text without a unit is seconds. Case and the space before the unit do not matter.
    name : str
        What the span is for, for the error text.
    rate : bool
        Whether the span is a period, which may be written as how often it comes: ``"Hz"``, ``"kHz"``, ``"MHz"``.
    zero : bool
        Whether nothing at all is a span as well.

    Returns
    -------
    int
        Nanoseconds, rounded to the nearest one; at most a year.

    Raises
    ------
    TypeError
        For ``bool``, and for everything else that is no number, text or time delta.
    ValueError
        For text that is no span of time; and for spans that are negative, not finite, longer than a year or, where
        nothing is no span, less than a nanosecond.

    Examples
    --------
    >>> parse_duration(0.005), parse_duration("5 ms"), parse_duration("1.5us"), parse_duration("200 Hz", rate=True)
    (5000000, 5000000, 1500, 5000000)
    >>> parse_duration(datetime.timedelta(milliseconds=5))
    5000000
    """
    help_text = _HELP.format(rate=', "200 Hz"' if rate else "")
    if isinstance(value, str):
        span = _parse_text(value, name, help_text, rate=rate)
    else:
        span = _parse_value(value, name, help_text)
    if span < 0 or span > LONGEST * NANOSECONDS or (span == 0 and not zero):
        raise ValueError(f"{name} must be {'0' if zero else 'more than 0'} to one year, not {value!r}; {help_text}")
    nanoseconds = round(span)
    if nanoseconds == 0 and not zero:
        raise ValueError(f"{name} of {value!r} is less than a nanosecond; {help_text}")
    return nanoseconds


def _parse_value(value: object, name: str, help_text: str) -> Fraction:
    """Nanoseconds of a number or a time delta."""
    if isinstance(value, np.timedelta64):
        try:
            exact = value.astype("timedelta64[ns]")
        except (TypeError, ValueError, OverflowError):  # NumPy 2.5 tells an overflow, earlier ones wrap
            exact = np.timedelta64("NaT", "ns")
        # A number without a unit, or of months, says nothing; what is too large for nanoseconds changes its value.
        if np.isnat(exact) or np.datetime_data(value.dtype)[0] in ("generic", "Y", "M") or exact != value:
            raise ValueError(f"{name} must be a span of time, not {value!r}; {help_text}")
        return Fraction(int(exact.astype(np.int64)))
    if isinstance(value, datetime.timedelta):
        # pandas.Timedelta has nanoseconds beside the rest.
        rest = getattr(value, "nanoseconds", 0)
        return Fraction(((value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds) * 1000 + rest)
    try:
        if isinstance(value, (bool, np.bool_, bytes, bytearray)):
            raise TypeError
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} must be a span of time, not {value!r}; {help_text}") from None
    if not math.isfinite(seconds):
        raise ValueError(f"{name} must be a span of time, not {value!r}; {help_text}")
    return Fraction(seconds) * NANOSECONDS


def _parse_text(text: str, name: str, help_text: str, *, rate: bool) -> Fraction:
    """Nanoseconds of text."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{name} {text!r} is not a span of time; {help_text}")
    number, unit = Fraction(match["number"]), match["unit"]
    span = _SPANS.get(unit) or _SPANS.get(unit.lower())
    if span is not None:
        return number * span
    often = _RATES.get(unit.lower())
    if often is None or unit in ("mHz", "mhz"):  # not a million times what was meant
        raise ValueError(f"{name} {text!r} has the unknown unit {unit!r}; {help_text}")
    if not rate:
        raise ValueError(f"{name} {text!r} is a rate and no span of time; {help_text}")
    if number == 0:
        raise ValueError(f"{name} {text!r} never comes; {help_text}")
    return NANOSECONDS / (number * often)


def parse_seconds(text: str) -> float:
    """Read an argument of a command line: a span of time, in seconds; `argparse` prints what it raises.

    Examples
    --------
    >>> parse_seconds("20"), parse_seconds("500 ms")
    (20.0, 0.5)
    """
    import argparse

    try:
        return parse_duration(text, "a time", zero=True) / NANOSECONDS
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
