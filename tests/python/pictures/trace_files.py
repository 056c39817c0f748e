"""Trace files written by hand: with names, places and events that no recording would make."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import rtpool
from rtpool._trace import events as format

Event = tuple[int, int, int, int, int]  # time, kind with its bits, place, address / 16, size or a mark's number


def varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def record(kind: bytes, payload: bytes) -> bytes:
    head = kind + struct.pack("<II", len(payload), zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return varint(len(data)) + data


def chunk(thread: int, events: list[Event]) -> bytes:
    kinds, times, places, addresses, sizes = bytearray(), bytearray(), bytearray(), bytearray(), bytearray()
    last_time, last_address, marks = events[0][0], 0, 0
    for time, kind, place, address, size in events:
        what = kind & 3
        failed = what == format.ALLOCATE and kind >> 2 & 3 == format.FAILED
        kinds.append(kind)
        times += varint(time - last_time)
        last_time = time
        marks += what == format.MARK
        if what in (format.ALLOCATE, format.FREE):
            places += varint(place)
        if what != format.MARK and not failed:
            step = address - last_address
            addresses += varint((step << 1 ^ step >> 63) & (1 << 64) - 1)
            last_address = address
        if what != format.FREE:
            sizes += varint(size)
    columns = (times, places, addresses, sizes)
    head = struct.pack("<IIQQQ4IQ", thread, len(events), events[0][0], last_time, 0, *map(len, columns), marks)
    return record(b"EVTS", head + bytes(kinds) + b"".join(map(bytes, columns)))


def trace_file(
    threads: Iterable[list[Event]] = (),
    *,
    places: Iterable[tuple[str, str, int, int, int]] = (),
    stacks: Iterable[tuple[int, int]] = (),
    spans: Iterable[str] = (),
    totals: Iterable[tuple[int, ...]] = (),
    meta: dict[str, Any] | None = None,
    end: dict[str, Any] | None = None,
) -> bytes:
    """A whole file. Places: file, function, line, columns from 0 (-1: not known); their numbers count from 1."""
    about = {"format": "rtpool-trace", "version": 1, "arguments": ["program.py"], "process": 4711, "directory": "/work"}
    data = record(b"META", json.dumps(about | (meta or {})).encode())
    names = bytearray()
    for number, (file, function, line, column, end_column) in enumerate(places, 1):
        names += b"\x01" + varint(number) + varint(1) + text(file) + text(function)
        names += b"\x02" + b"".join(map(varint, (number, number, 0, line, line, column + 1, end_column + 1)))
    for number, (below, place) in enumerate(stacks, 1):
        names += b"\x03" + varint(number) + varint(below) + varint(place)
    for number, name in enumerate(spans, 1):
        names += b"\x04" + varint(number) + text(name)
    data += record(b"NAME", bytes(names))
    data += record(b"SAMP", struct.pack("<5Q", 0, 0, 1 << 20, 5, 0))
    for thread, events in enumerate(threads, 1):
        if events:
            data += chunk(thread, events)
    for line in totals:
        data += record(b"TOTL", struct.pack("<12Q", *line))
    data += record(b"SAMP", struct.pack("<5Q", 10**9, 10**9, 3 << 20, 9, 0))
    return data + record(b"ENDS", json.dumps({"ended": 1} | (end or {})).encode())


def load(data: bytes) -> rtpool.Trace:
    return rtpool.Trace(io.BytesIO(data))


def mark(time: int, which: int, number: int) -> Event:
    return time, format.MARK | which << 2, 0, 0, number


def loop(turns: int, places: int, *, begin: int = 1000, step: int = 10_000, base: int = 1 << 20) -> list[Event]:
    """An array of each place in each turn, which is an iteration; the first place's array lives on to the next turn."""
    events: list[Event] = []
    time = begin
    for turn in range(turns):
        events.append(mark(time, format.ITERATION_BEGIN, turn))
        for place in range(1, places + 1):
            time += step
            outcome = format.MISS if turn == 0 else format.HIT
            address = base + 4096 * (place if place > 1 else -(turn % 2))
            events.append((time, format.ALLOCATE | outcome << 2, place, address, 1000 * place))
            if place > 1:
                events.append((time + step // 2, format.FREE, place, address, 0))
            elif turn:
                events.append((time + step // 2, format.FREE, place, base + 4096 * -((turn - 1) % 2), 0))
            time += step // 2
        time += step
        events.append(mark(time, format.ITERATION_END, turn))
    return events
