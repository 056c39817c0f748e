"""The arguments of a real-time section, checked and in the units of the core."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Iterable
from typing import NamedTuple, SupportsIndex

from .._support.durations import Duration, parse_duration
from .._support.options import word

MICROSECOND = 1000

NEVER = -1


class Pacing(NamedTuple):
    """How a section's loop runs; nanoseconds."""

    period: int
    catch_up: bool
    spin: int
    warmup: int
    iterations: int
    duration: int


def whole(value: SupportsIndex, name: str, least: int, most: int) -> int:
    """Check a whole number."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number}")
    return number


def processors(value: SupportsIndex | Iterable[SupportsIndex] | None) -> tuple[int, ...] | None:
    """Check one processor or several."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        raise TypeError(f"cpu must be the number of a processor or several of them, not {value!r}")
    numbers: Iterable[SupportsIndex] = value if isinstance(value, Iterable) else (value,)
    checked = tuple(whole(number, "cpu", 0, 1023) for number in numbers)
    if not checked:
        raise ValueError("cpu names no processor; leave it out to keep the affinity as it is")
    return checked


def latency(value: SupportsIndex | str | datetime.timedelta | None) -> int:
    """Check a wake-up latency and give it in whole microseconds; -1 for `None`."""
    if value is None:
        return NEVER
    if isinstance(value, (str, datetime.timedelta)):
        value = parse_duration(value, "cpu_latency", zero=True) // MICROSECOND
    return whole(value, "cpu_latency", 0, 2_000_000_000)


def pacing(
    period: Duration | None,
    overrun: str,
    spin: Duration,
    warmup: SupportsIndex,
    iterations: SupportsIndex | None,
    duration: Duration | None,
) -> Pacing:
    """Check how the loop is to run."""
    every = 0 if period is None else parse_duration(period, "period", rate=True)
    spun = parse_duration(spin, "spin", zero=True)
    if spun > every:
        raise ValueError("spin must not be longer than the period" if every else "spin needs a period")
    return Pacing(
        every,
        word(overrun, "overrun", ("skip", "catch-up")) == "catch-up",
        spun,
        whole(warmup, "warmup", 0, 1 << 40),
        NEVER if iterations is None else whole(iterations, "iterations", 0, 1 << 62),
        NEVER if duration is None else parse_duration(duration, "duration"),
    )
