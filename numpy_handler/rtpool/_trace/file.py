"""Trace files: the records of one, and its events decoded into arrays.

Pure Python and NumPy: nothing of rtpool's core is needed, so that a trace can be read elsewhere. Nothing in a file is
trusted: whatever does not fit raises `TraceError`. docs/reference/trace-format.md describes the format.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, NoReturn

from .events import EMPTY, HEAD, MOST_AT_ONCE, NEVER, Chunk, Events, TraceError, decode, decode_marks, join, split

VERSION = 1
MOST_CHUNK_EVENTS = 1 << 20
MOST_TEXT = 64 << 20

_HEAD = struct.Struct("<4sIII")
_SAMPLE = struct.Struct("<5Q")
_TOTAL = struct.Struct("<12Q")
_LIFE = struct.Struct("<3Q")


class Code(NamedTuple):
    """A function of the program."""

    file: str
    function: str
    first_line: int


class Place(NamedTuple):
    """An instruction of the program, with the expression it belongs to. Columns: `None` where not known."""

    file: str
    function: str
    line: int
    end_line: int
    column: int | None
    end_column: int | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class PoolRange(NamedTuple):
    """A pool that was recorded, and its addresses; `first` counts 16 bytes, as addresses of events do.

    They are its own from `begun` to `ended`, in the recorder's units: a later pool may have the same ones.
    """

    name: str
    first: int
    bytes: int
    capacity: int
    shared: bool = False
    begun: int = 0
    ended: int = NEVER


class Sample(NamedTuple):
    """The process as the kernel saw it at a moment."""

    time: int
    nanoseconds: int
    resident_bytes: int
    minor_faults: int
    major_faults: int


class Total(NamedTuple):
    """What one thread asked for and freed, by place (mode totals)."""

    place: int
    calls: int
    bytes: int
    frees: int
    freed_bytes: int
    peak_bytes: int
    misses: int
    fallbacks: int
    failures: int
    zeroed: int
    remote_frees: int
    lifetime: int


class TraceFile:
    """The records of a trace file, read once from its begin to its end; events are decoded when asked for.

    Attributes
    ----------
    meta, end : dict
        What the recording said of itself when it began and ended; `end` is empty if the process died before.
    complete : bool
        Whether the file ends as it should. One that is cut off is read up to there.
    codes, places, stacks, spans, threads, pools : dict
        What numbers stand for. `stacks`: number -> (the stack below, place).
    samples : list of Sample
    chunks : list of Chunk
        In the order of their first event.
    totals : list of Total
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.meta: dict[str, Any] = {}
        self.end: dict[str, Any] = {}
        self.complete = False
        self.codes: dict[int, Code] = {}
        self.places: dict[int, Place] = {}
        self.stacks: dict[int, tuple[int, int]] = {}
        self.spans: dict[int, str] = {}
        self.threads: dict[int, int] = {}
        self.pools: dict[int, PoolRange] = {}
        self.samples: list[Sample] = []
        self.chunks: list[Chunk] = []
        self.totals: list[Total] = []
        self._lives: list[tuple[int, int, int]] = []
        self._read_records()
        self.chunks.sort(key=lambda chunk: (chunk.first, chunk.offset))
        for number, begun, ended in self._lives:
            if number in self.pools:
                pool = self.pools[number]
                self.pools[number] = pool._replace(begun=begun or pool.begun, ended=ended or pool.ended)

    # --- records ---

    def _read_records(self) -> None:
        file = self._file
        size = file.seek(0, 2)
        at = 0
        while not self.end:
            file.seek(at)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break  # cut off between records, or in the middle of a head
            kind, length, crc, head_crc = _HEAD.unpack(head)
            if zlib.crc32(head[:12]) != head_crc:
                self._wrong(at, "no record begins here" if at else "not the begin of a trace")
            if at == 0 and kind != b"META":
                self._wrong(at, "the first record is not META")
            if at + _HEAD.size + length > size:
                break  # cut off within a record
            if kind == b"EVTS":
                self._note_chunk(at, length, crc)
            else:
                if length > MOST_TEXT:
                    self._wrong(at, f"a record of {length:,} bytes")
                data = file.read(length)
                if zlib.crc32(data) != crc:
                    self._wrong(at, "the checksum of a record does not hold")
                self._read_record(kind, data, at)
            at += _HEAD.size + length
        if not self.meta:
            self._wrong(0, "an empty file, or one cut off in its first record")
        self.complete = bool(self.end)

    def _read_record(self, kind: bytes, data: bytes, at: int) -> None:
        if kind == b"META":
            self.meta = self._json(data, at)
            if self.meta.get("format") != "rtpool-trace":
                self._wrong(at, "its first record is of no rtpool-trace")
            if self.meta.get("version") != VERSION:
                self._wrong(at, f"version {self.meta.get('version')!r} of the format; this reads version {VERSION}")
        elif kind == b"NAME":
            self._read_names(data, at)
        elif kind == b"SAMP":
            if len(data) != _SAMPLE.size:
                self._wrong(at, "a sample of another length")
            self.samples.append(Sample(*_SAMPLE.unpack(data)))
        elif kind == b"TOTL":
            if len(data) % _TOTAL.size:
                self._wrong(at, "sums of another length")
            self.totals += [Total(*line) for line in _TOTAL.iter_unpack(data)]
        elif kind == b"POOL":
            if len(data) % _LIFE.size:
                self._wrong(at, "lives of pools of another length")
            for number, begun, ended in _LIFE.iter_unpack(data):
                if max(begun, ended) >= NEVER:
                    self._wrong(at, "a pool's life at a time that is none")
                self._lives.append((number, begun, ended))
        elif kind == b"ENDS":
            self.end = self._json(data, at) or {"ended": 0}
        # Other kinds are of later writers that kept the version: what they add is not needed to understand the rest.

    def _note_chunk(self, at: int, length: int, crc: int) -> None:
        if length < HEAD.size:
            self._wrong(at, "a chunk without a head")
        thread, count, first, last, lost, *columns, marks = HEAD.unpack(self._file.read(HEAD.size))
        if count > MOST_CHUNK_EVENTS or HEAD.size + count + sum(columns) != length:
            self._wrong(at, "a chunk whose head does not fit its length")
        if not first <= last < 1 << 62:
            self._wrong(at, "a chunk whose times run backwards")
        sizes = (columns[0], columns[1], columns[2], columns[3])
        self.chunks.append(Chunk(at + _HEAD.size, length, crc, thread, count, first, last, lost, sizes, marks))

    def _json(self, data: bytes, at: int) -> dict[str, Any]:
        try:
            value = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            self._wrong(at, f"unreadable JSON: {error}")
        if not isinstance(value, dict):
            self._wrong(at, "JSON that is no object")
        return value

    def _read_names(self, data: bytes, at: int) -> None:
        reader = _Items(data)
        try:
            while reader.left():
                kind = reader.byte()
                if kind == 1:
                    number, line = reader.number(), reader.number()
                    file, function = reader.text(), reader.text()
                    self.codes[number] = Code(file, function, line)
                elif kind == 2:
                    number, code, _, line, end_line, column, end_column = (reader.number() for _ in range(7))
                    file, function, _ = self.codes.get(code, _NO_CODE)
                    known = column > 0 and end_column > 0
                    columns = (column - 1, end_column - 1) if known else (None, None)
                    self.places[number] = Place(file, function, line, max(line, end_line), *columns)
                elif kind == 3:
                    number, outer, place = (reader.number() for _ in range(3))
                    if outer >= number:  # a stack comes after what is below it: no circle
                        raise TraceError("a stack above itself")
                    self.stacks[number] = (outer, place)
                elif kind == 4:
                    number = reader.number()
                    self.spans[number] = reader.text()
                elif kind in (5, 7):
                    number, first, size, capacity = (reader.number() for _ in range(4))
                    if max(first, size, capacity) >= 1 << 60:
                        raise TraceError("a pool at addresses that no process has")
                    self.pools[number] = PoolRange(reader.text(), first, size, capacity, kind == 7)
                elif kind == 6:
                    number = reader.number()
                    self.threads[number] = reader.number()
                else:
                    raise TraceError(f"an item of kind {kind}")
        except TraceError as error:
            self._wrong(at, str(error))

    def _wrong(self, at: int, what: str) -> NoReturn:
        raise TraceError(f"no trace, or a damaged one: {what}, at byte {at:,}")

    # --- events ---

    @property
    def count(self) -> int:
        """Events in the file."""
        return sum(chunk.events for chunk in self.chunks)

    @property
    def lost(self) -> int:
        """Events that were lost, as far as the file says."""
        told = self.end.get("lost", 0)
        return max(sum(chunk.lost for chunk in self.chunks), told if isinstance(told, int) else 0)

    def place(self, number: int) -> Place | None:
        """The place of an event; of a stack the innermost one outside of NumPy and rtpool."""
        if not self.stacks:
            return self.places.get(number)
        innermost: Place | None = None
        while number:
            number, at = self.stacks.get(number, (0, 0))
            place = self.places.get(at)
            if place is None:
                continue
            if not any(folder in place.file for folder in _LIBRARIES):
                return place
            innermost = innermost or place
        return innermost

    def decode(self, chunks: Sequence[Chunk]) -> Events:
        """The events of chunks, one chunk behind the other."""
        return join(list(self._decoded(chunks, decode)))

    def decode_marks(self, chunks: Sequence[Chunk]) -> Events:
        """The marks of chunks alone, for a third of the time."""
        return join(list(self._decoded(chunks, decode_marks)))

    def _decoded(
        self, chunks: Sequence[Chunk], decoder: Callable[[Sequence[bytes], Sequence[Chunk]], Events]
    ) -> Iterator[Events]:
        for some in _batches(chunks):
            payloads = [self._payload(chunk) for chunk in some]
            try:
                yield decoder(payloads, some)
            except TraceError as error:
                if len(some) == 1:
                    self._wrong(some[0].offset, str(error))
                for chunk in some:  # which one is it?
                    yield from self._decoded([chunk], decoder)

    def _payload(self, chunk: Chunk) -> bytes:
        self._file.seek(chunk.offset)
        data = self._file.read(chunk.size)
        if len(data) != chunk.size or zlib.crc32(data) != chunk.crc:
            self._wrong(chunk.offset, "the checksum of a chunk does not hold")
        return data

    def windows(self, most: int = 1 << 20, at_least: Callable[[], int] = int) -> Iterator[Events]:
        """All events in the order of time, about `most` at a time: each window begins where the one before ends.

        `at_least` is asked ahead of each window how many it should have, if that is more.
        """
        held = EMPTY
        waiting: list[Chunk] = []
        pending = 0
        for number, chunk in enumerate(self.chunks):
            waiting.append(chunk)
            pending += chunk.events
            is_last = number + 1 == len(self.chunks)
            if not is_last and pending < max(most, at_least()):
                continue
            # Chunks come in the order of their first event: up to the next one's nothing is missing.
            events = join([held, self.decode(waiting)])
            ready, held = split(events, 1 << 62 if is_last else self.chunks[number + 1].first)
            waiting, pending = [], 0
            begin = 0
            while begin < len(ready):
                end = begin + max(most, at_least())
                yield ready.take(slice(begin, end))
                begin = end


def _batches(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks that are decoded together."""
    batch: list[Chunk] = []
    events = 0
    for chunk in chunks:
        if batch and (len(batch) == MOST_AT_ONCE or events + chunk.events > MOST_CHUNK_EVENTS):
            yield batch
            batch, events = [], 0
        batch.append(chunk)
        events += chunk.events
    if batch:
        yield batch


_LIBRARIES = ("/numpy/", "/rtpool/")
_NO_CODE = Code("?", "?", 0)


class _Items:
    """The items of a names record."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise TraceError("a name that is cut off")
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise TraceError("a number of more than ten bytes")

    def text(self) -> str:
        length = self.number()
        if length > len(self._data) - self._at:
            raise TraceError("a text that is cut off")
        self._at += length
        text = self._data[self._at - length : self._at].decode("utf-8", "replace")
        # What is printed must not steer a terminal.
        return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
