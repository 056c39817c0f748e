"""The arguments of a real-time section, checked and in the units of the core."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import NamedTuple, SupportsFloat, SupportsIndex

NANOSECONDS = 1_000_000_000
LONGEST = 365 * 24 * 3600.0  # seconds

NEVER = -1


class Pacing(NamedTuple):
    """How a section's loop runs; nanoseconds."""

    period: int
    catch_up: bool
    spin: int
    warmup: int
    iterations: int
    duration: int


def seconds(value: SupportsFloat, name: str, *, zero: bool = False) -> int:
    """Check a span of time in seconds and give it in nanoseconds."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        span = float(value)
    except TypeError:
        raise TypeError(f"{name} must be seconds, such as 0.001, not {value!r}") from None
    if not math.isfinite(span) or span < 0 or (span == 0 and not zero) or span > LONGEST:
        raise ValueError(f"{name} must be seconds, {'0' if zero else 'more than 0'} to one year, not {value!r}")
    nanoseconds = round(span * NANOSECONDS)
    if nanoseconds == 0 and not zero:
        raise ValueError(f"{name} of {value!r} s is less than a nanosecond")
    return nanoseconds


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


def choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Check one of a few texts."""
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def flag(value: object, name: str) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


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


def pacing(
    period: SupportsFloat | None,
    overrun: str,
    spin: SupportsFloat,
    warmup: SupportsIndex,
    iterations: SupportsIndex | None,
    duration: SupportsFloat | None,
) -> Pacing:
    """Check how the loop is to run."""
    every = 0 if period is None else seconds(period, "period")
    spun = seconds(spin, "spin", zero=True)
    if spun > every:
        raise ValueError("spin must not be longer than the period" if every else "spin needs a period")
    return Pacing(
        every,
        choice(overrun, "overrun", ("skip", "catch-up")) == "catch-up",
        spun,
        whole(warmup, "warmup", 0, 1 << 40),
        NEVER if iterations is None else whole(iterations, "iterations", 0, 1 << 62),
        NEVER if duration is None else seconds(duration, "duration"),
    )
