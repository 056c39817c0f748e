"""Traces for Perfetto, in its own format: slices, counters, and heap profiles that its flame graphs show.

A trace is a protocol buffer, `perfetto.protos.Trace`; the few messages it takes here are written field by field. The
numbers below are the fields' in Perfetto's .proto files, which never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

_SEQUENCE = 1
_CLEARED, _NEEDED = 1, 2  # TracePacket.SequenceFlags
_BEGIN, _END, _COUNTER = 1, 2, 4  # TrackEvent.Type
_CLOCKS = (6, 3, 4)  # of the time since boot, monotonic, monotonic and coarse
BYTES, COUNT = 3, 2  # CounterDescriptor.Unit


def varint(value: int) -> bytes:
    """A number as protocol buffers write it; negative ones as 64 bits."""
    value &= (1 << 64) - 1
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def number(field: int, value: int) -> bytes:
    """A field that is a whole number."""
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes | str) -> bytes:
    """A field that is a message, bytes or text."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


class Writer:
    """Writes a trace of one process to a file. Times are nanoseconds from any moment, at least 0."""

    def __init__(self, file: BinaryIO, process: int, name: str) -> None:
        self._file = file
        self._process = process
        self._tracks = 1
        # Heap profiles have their times by a clock of their own: here all are one.
        clocks = b"".join(message(1, number(1, clock) + number(2, 1)) for clock in _CLOCKS)
        self._packet(message(6, clocks + number(2, _CLOCKS[0])))
        descriptor = number(1, process) + message(6, name)
        self._packet(message(60, number(1, 1) + message(3, descriptor)) + number(13, _CLEARED))

    def _packet(self, content: bytes, time: int | None = None) -> None:
        stamp = b"" if time is None else number(8, time)
        self._file.write(message(1, stamp + content + number(10, _SEQUENCE)))

    def _track(self, content: bytes) -> int:
        self._tracks += 1
        self._packet(message(60, number(1, self._tracks) + number(5, 1) + content))
        return self._tracks

    def counter(self, name: str, unit: int) -> int:
        """A track of one figure over time."""
        return self._track(message(2, name) + message(8, number(3, unit)))

    def lane(self, name: str) -> int:
        """A track of slices that do not stand above a thread."""
        return self._track(message(2, name))

    def count(self, track: int, time: int, value: int) -> None:
        """A figure at a moment."""
        self._packet(message(11, number(9, _COUNTER) + number(11, track) + number(30, value)), time)

    def slices(self, track: int, slices: Iterable[tuple[int, int, str]]) -> None:
        """Stretches of time, in the order in which they begin; those that are inside of others end with them."""
        open_ends: list[int] = []
        for begin, end, name in slices:
            while open_ends and open_ends[-1] <= begin:
                self._packet(message(11, number(9, _END) + number(11, track)), open_ends.pop())
            end = max(begin, min([end, *open_ends[-1:]]))
            self._packet(message(11, number(9, _BEGIN) + number(11, track) + message(23, name)), begin)
            open_ends.append(end)
        while open_ends:
            self._packet(message(11, number(9, _END) + number(11, track)), open_ends.pop())

    def names(self, frames: Sequence[tuple[str, str]], stacks: Sequence[Sequence[int]]) -> None:
        """Say what frames (name and file) and stacks (frames by number from 0, the outermost first) there are."""
        files = {file: place for place, file in enumerate(dict.fromkeys(file for _, file in frames), 1)}
        parts = [message(16, number(1, 1) + message(2, b"rtpool"))]
        for file, place in files.items():
            parts.append(message(17, number(1, place) + message(2, file)))
            parts.append(message(19, number(1, place) + number(2, 1) + number(5, 1 << 40) + number(7, place)))
        for place, (name, file) in enumerate(frames, 1):
            parts.append(message(5, number(1, place) + message(2, name)))
            frame = number(1, place) + number(2, place) + number(3, files[file]) + number(4, place)
            parts.append(message(6, frame))
        for place, stack in enumerate(stacks, 1):
            parts.append(message(7, number(1, place) + b"".join(number(2, frame + 1) for frame in stack)))
        self._packet(message(12, b"".join(parts)) + number(13, _NEEDED))

    def heap(self, index: int, time: int, samples: Iterable[tuple[int, int, int, int, int]]) -> None:
        """A heap profile: up to that moment, per stack, bytes made and freed, and blocks made and freed."""
        time = max(time, 1)
        parts = [number(1, self._process), number(3, 1), number(9, time), message(11, "NumPy's arrays")]
        for stack, made, freed, blocks, blocks_freed in samples:
            sample = number(1, stack + 1) + number(2, made) + number(3, freed)
            parts.append(message(2, sample + number(4, time) + number(5, blocks) + number(6, blocks_freed)))
        self._packet(message(37, message(5, b"".join(parts)) + number(7, index)) + number(13, _NEEDED), time)
