"""Trace files: the records of one, and its events decoded into arrays.

Pure Python and NumPy: nothing of rtpool's core is needed, so that a trace can be read elsewhere. Nothing in a file is
trusted: whatever does not fit raises `TraceError`. docs/reference/trace-format.md describes the format.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

VERSION = 1
MOST_CHUNK_EVENTS = 1 << 20
MOST_TEXT = 64 << 20
SIZE_SLOTS = 256

ALLOCATE, FREE, MARK, ALIVE = 0, 1, 2, 3
HIT, MISS, FALLBACK, FAILED = 0, 1, 2, 3
ZEROED, RESIZE, SAME_SIZE, REMOTE = 16, 32, 64, 4
(ITERATION_BEGIN, ITERATION_END, SPAN_BEGIN, SPAN_END, TICK_BEGIN, TICK_END, FAULTS) = range(7)

_HEAD = struct.Struct("<4sIII")
_EVENTS = struct.Struct("<IIQQQ4IQ")
_SAMPLE = struct.Struct("<5Q")
_TOTAL = struct.Struct("<12Q")

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


class TraceError(ValueError):
    """A file is no trace, or a damaged one; the text says where it goes wrong."""


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
    """A pool that was recorded, and the addresses that are its own."""

    name: str
    first: int
    bytes: int
    capacity: int


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


class Chunk(NamedTuple):
    """Where a chunk's payload is, and its head."""

    offset: int
    size: int
    crc: int
    thread: int
    events: int
    first: int
    last: int
    lost: int
    columns: tuple[int, int, int, int]
    marks: int


class Events(NamedTuple):
    """Events in the order of time, one row each. `place`, `address` and `size` are 0 where an event has none.

    A mark's number is its `size`. Addresses count 16 bytes.
    """

    time: I64
    kind: U8
    place: U32
    address: U64
    size: I64
    thread: U32

    def __len__(self) -> int:
        return self.time.size

    def take(self, index: Any) -> Events:
        """Some of them."""
        return Events(*(column[index] for column in self))


EMPTY = Events(
    np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint64),
    np.empty(0, np.int64), np.empty(0, np.uint32),
)  # fmt: skip


def join(parts: list[Events]) -> Events:
    """All of them behind each other."""
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if parts else EMPTY


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
        self._read_records()
        self.chunks.sort(key=lambda chunk: (chunk.first, chunk.offset))

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
        elif kind == b"ENDS":
            self.end = self._json(data, at) or {"ended": 0}
        # Other kinds are of later writers that kept the version: what they add is not needed to understand the rest.

    def _note_chunk(self, at: int, length: int, crc: int) -> None:
        if length < _EVENTS.size:
            self._wrong(at, "a chunk without a head")
        thread, count, first, last, lost, *columns, marks = _EVENTS.unpack(self._file.read(_EVENTS.size))
        if count > MOST_CHUNK_EVENTS or _EVENTS.size + count + sum(columns) != length:
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
                elif kind == 5:
                    number, first, size, capacity = (reader.number() for _ in range(4))
                    self.pools[number] = PoolRange(reader.text(), first, size, capacity)
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

    def decode(self, chunk: Chunk) -> Events:
        """The events of a chunk."""
        self._file.seek(chunk.offset)
        data = self._file.read(chunk.size)
        if len(data) != chunk.size or zlib.crc32(data) != chunk.crc:
            self._wrong(chunk.offset, "the checksum of a chunk does not hold")
        try:
            return decode_chunk(data, chunk)
        except TraceError as error:
            self._wrong(chunk.offset, str(error))

    def windows(self, most: int = 1 << 20) -> Iterator[Events]:
        """All events in the order of time, about `most` at a time: each window begins where the one before ends."""
        held = EMPTY
        parts: list[Events] = []
        pending = 0
        for number, chunk in enumerate(self.chunks):
            parts.append(self.decode(chunk))
            pending += chunk.events
            if pending < most or number + 1 == len(self.chunks):
                continue
            # Chunks come in the order of their first event: up to the next one's nothing is missing.
            ready, held = _split(join([held, *parts]), self.chunks[number + 1].first)
            parts, pending = [], 0
            if len(ready):
                yield ready
        ready, _ = _split(join([held, *parts]), 1 << 62)
        if len(ready):
            yield ready


_LIBRARIES = ("/numpy/", "/rtpool/")
_NO_CODE = Code("?", "?", 0)


def _split(events: Events, end: int) -> tuple[Events, Events]:
    """In the order of time: what comes before `end`, and the rest. Equal times: frees first, else as they were."""
    key = 2 * events.time + ((events.kind & 3) != FREE)
    if (key[1:] < key[:-1]).any():
        events = events.take(np.argsort(key, kind="stable"))  # quick, as each thread's are in order
    cut = int(np.searchsorted(events.time, end))
    return events.take(slice(0, cut)), events.take(slice(cut, None))


def varints(data: U8, count: int) -> U64:
    """Decode `count` varints that fill `data`."""
    ends = np.flatnonzero(data < 0x80)
    if ends.size != count or data.size != (int(ends[-1]) + 1 if count else 0):
        raise TraceError("a column that does not hold as many numbers as it should")
    if not count:
        return np.empty(0, np.uint64)
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise TraceError("a number of more than ten bytes")
    values = (data[starts] & 0x7F).astype(np.uint64)
    more = np.arange(count)
    for k in range(1, longest):
        more = more[lengths[more] > k]
        values[more] |= (data[starts[more] + k] & 0x7F).astype(np.uint64) << np.uint64(7 * k)
    return values


def decode_chunk(data: bytes, chunk: Chunk) -> Events:
    """Decode a chunk's payload."""
    raw = np.frombuffer(data, np.uint8)
    bounds = np.cumsum([_EVENTS.size, chunk.events, *chunk.columns])
    kinds, times, places, addresses, sizes = (raw[a:b] for a, b in zip(bounds, bounds[1:], strict=False))
    count = chunk.events
    kind = kinds & 3
    is_allocation, is_free = kind == ALLOCATE, kind == FREE
    time = varints(times, count)
    if int((kind == MARK).sum()) != chunk.marks:
        raise TraceError("not as many marks as there should be")
    if count and (int(time.max()) >= 1 << 40 or chunk.first + int(time.sum()) != chunk.last):
        raise TraceError("times that do not add up")
    when = np.cumsum(time.astype(np.int64)) + np.int64(chunk.first)

    place = np.zeros(count, np.uint32)
    has_place = is_allocation | is_free
    numbers = varints(places, int(has_place.sum()))
    if numbers.size and int(numbers.max()) >= 1 << 22:
        raise TraceError("a place whose number is too high")
    place[has_place] = numbers

    address = np.zeros(count, np.uint64)
    failed = is_allocation & ((kinds >> 2 & 3) == FAILED)
    has_address = (kind != MARK) & ~failed
    steps = varints(addresses, int(has_address.sum()))
    signed = (steps >> np.uint64(1)) ^ (np.uint64(0) - (steps & np.uint64(1)))
    address[has_address] = np.cumsum(signed)  # modulo 2**64
    if address.size and int(address.max()) >= 1 << 60:
        raise TraceError("an address that no process has")

    size = np.zeros(count, np.uint64)
    same = is_allocation & ((kinds & SAME_SIZE) != 0)
    has_size = (is_allocation | (kind == ALIVE) | (kind == MARK)) & ~same
    size[has_size] = varints(sizes, int(has_size.sum()))
    if same.any():
        size[is_allocation] = _fill(size[is_allocation], same[is_allocation], place[is_allocation])
    if count and int(size.max()) >= 1 << 62:
        raise TraceError("a size that no memory has")
    thread = np.full(count, chunk.thread, np.uint32)
    return Events(when, kinds, place, address, size.astype(np.int64), thread)


def _fill(size: U64, same: NDArray[np.bool_], place: U32) -> U64:
    """Sizes that stand for the last one in the slot of their place."""
    slot = (place % SIZE_SLOTS).astype(np.uint8)
    order = np.argsort(slot, kind="stable")
    given = np.where(same[order], -1, np.arange(order.size))
    source = np.maximum.accumulate(given)
    sorted_slot = slot[order]
    if (source < 0).any() or (sorted_slot[source] != sorted_slot).any():
        raise TraceError("a size that stands for one that is not there")
    filled = np.empty_like(size)
    filled[order] = size[order][source]
    return filled


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
