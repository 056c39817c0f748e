"""Spans of time are seconds, text with a unit or time deltas; everything else is refused with a text that helps."""

from __future__ import annotations

import contextlib
import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtpool
from rtpool._support.durations import LONGEST, parse_duration


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (1, 1_000_000_000),
        (0.001, 1_000_000),
        (np.float32(0.5), 500_000_000),
        (np.int64(2), 2_000_000_000),
        ("0.25", 250_000_000),
        ("5 ms", 5_000_000),
        ("5ms", 5_000_000),
        ("  .5  MS ", 500_000),
        ("500 us", 500_000),
        ("500 \N{MICRO SIGN}s", 500_000),
        ("500\N{GREEK SMALL LETTER MU}s", 500_000),
        ("20 ns", 20),
        ("1.5 s", 1_500_000_000),
        ("2e-3 s", 2_000_000),
        ("1 min", 60_000_000_000),
        ("2 h", 7_200_000_000_000),
        ("200 Hz", 5_000_000),
        ("60hz", 16_666_667),
        ("1 kHz", 1_000_000),
        ("0.1 MHz", 10_000),
        ("0.5 Hz", 2_000_000_000),
        (datetime.timedelta(milliseconds=5), 5_000_000),
        (datetime.timedelta(days=1, microseconds=1), 86_400_000_001_000),
        (np.timedelta64(5, "ms"), 5_000_000),
        (np.timedelta64(3, "h"), 10_800_000_000_000),
    ],
)
def test_periods_are_read(value: object, nanoseconds: int) -> None:
    assert parse_duration(value, rate=True) == nanoseconds  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, np.True_, None, b"5 ms", [1], 1j, np.array([1, 2]), object()])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match='pause must be .* not .*seconds.*"5 ms".*timedelta'):
        parse_duration(value, "pause")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "", "ms", "5 parsec", "5 m", "-5 ms", "+5",
        "1_000", "nan", "inf", "1..5 ms", "0x10", "5,5 ms", "1e9999", "9" * 50,
        "\u0663 ms", "10 mHz", "0 Hz", "0", "0.1 ns", 0, -1.0, math.nan, math.inf, 1e-10, 1e300, 10**400, LONGEST + 1,
        "366000 h", datetime.timedelta(0), datetime.timedelta(seconds=-1), datetime.timedelta(days=400),
        np.timedelta64(5), np.timedelta64("NaT"), np.timedelta64(1, "M"), np.timedelta64(10**17, "s"),
    ],
)  # fmt: skip
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match='pause .*seconds.*"5 ms".*"500 us".*"200 Hz".*timedelta'):
        parse_duration(value, "pause", rate=True)  # type: ignore[arg-type]


def test_nothing_at_all_is_a_span_where_it_is_asked_for() -> None:
    assert parse_duration(0, zero=True) == parse_duration("0 ms", zero=True) == parse_duration("0.1 ns", zero=True) == 0
    with pytest.raises(ValueError, match="0 to one year"):
        parse_duration(-1, zero=True)


def test_only_periods_are_rates() -> None:
    with pytest.raises(ValueError, match="pause '5 Hz' is a rate") as raised:
        parse_duration("5 Hz", "pause")
    assert '"200 Hz"' not in str(raised.value)


@given(st.integers(1, LONGEST * 1_000_000_000))
def test_every_nanosecond_is_told_apart(span: int) -> None:
    assert parse_duration(f"{span} ns") == parse_duration(f"{span // 1000}.{span % 1000:03} us") == span
    assert parse_duration(datetime.timedelta(microseconds=span // 1000), zero=True) == span // 1000 * 1000


@given(st.text(max_size=12))
def test_any_text_gives_a_span_or_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 < parse_duration(text, rate=True) <= LONGEST * 1_000_000_000


def test_a_section_takes_all_of_them() -> None:
    for period in (0.005, "5 ms", "5000 us", "200 Hz", datetime.timedelta(milliseconds=5), np.timedelta64(5, "ms")):
        with rtpool.realtime(period, pool=rtpool.Pool(), duration="15 ms", spin="10 us", cpu_latency=None) as rt:
            count = sum(1 for _ in rt)
        assert rt.report.period == 0.005 and count + rt.report.skipped == 3
    for name in ("period", "duration", "spin"):
        with pytest.raises(ValueError, match=f'{name} .*seconds.*"5 ms".*timedelta'):
            rtpool.realtime(**{"period": 1, name: "soon"})  # type: ignore[arg-type]


def test_a_latency_is_microseconds_or_a_span() -> None:
    asked = [rtpool.realtime(cpu_latency=value)._wanted.cpu_latency for value in (None, 0, 20, "20 us", "0")]
    assert asked == [-1, 0, 20, 20, 0]
    with pytest.raises(TypeError, match="cpu_latency"):
        rtpool.realtime(cpu_latency=0.5)  # type: ignore[arg-type]
