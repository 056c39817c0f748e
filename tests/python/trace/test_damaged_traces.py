"""Files of traces that are damaged, or made to harm: an error, never a crash."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
import pytest

import rtpool


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "trace"
    with rtpool.handler(rtpool.Pool()), rtpool.record(path, stacks="full") as recording:
        for number in recording.iterations(range(30)):
            with recording.span("work"):
                np.ones(100 + number % 3)
    return path.read_bytes()


def read_all(data: bytes) -> None:
    trace = rtpool.Trace(io.BytesIO(data))
    trace.summary()
    trace.advice()
    trace.misses()


def mended(data: bytearray) -> bytes:
    """With checksums that hold again, so that what is inside is looked at."""
    at = 0
    while at + 16 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 8 : at + 12] = zlib.crc32(data[at + 16 : at + 16 + length]).to_bytes(4, "little")
        data[at + 12 : at + 16] = zlib.crc32(data[at : at + 12]).to_bytes(4, "little")
        at += 16 + length
    return bytes(data)


def test_every_cut_is_read_up_to_there_or_refused(sound: bytes) -> None:
    first = 16 + int.from_bytes(sound[4:8], "little")  # it has the command line, so it may be long
    for length in range(0, len(sound), 7):
        try:
            trace = rtpool.Trace(io.BytesIO(sound[:length]))
        except rtpool.TraceError:
            assert length < first
            continue
        assert not trace.file.complete
        trace.summary()


def test_a_changed_byte_is_noticed(sound: bytes) -> None:
    chance = random.Random(5)
    for _ in range(300):
        data = bytearray(sound)
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        with pytest.raises(rtpool.TraceError):
            read_all(bytes(data))


def test_hostile_contents_are_refused_or_read(sound: bytes) -> None:
    chance = random.Random(6)
    refused = 0
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(16, len(data))
            data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        try:
            read_all(mended(data))
        except rtpool.TraceError:
            refused += 1
    assert refused


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 100, b"META" + b"\xff" * 100])
def test_what_is_no_trace_is_refused(data: bytes) -> None:
    with pytest.raises(rtpool.TraceError, match="no trace"):
        rtpool.Trace(io.BytesIO(data))
