"""What a trace tells, as plain values."""

from __future__ import annotations

from typing import NamedTuple

from . import source

BYPASS = (
    "not seen: NumPy's iterator buffers, sort scratch and LAPACK work arrays, Python's own objects, other libraries'"
    " own memory"
)

# Of children that a recorded process forked: without and with `children=True`.
FORKED = (
    "not recorded (record(children=True), run --children --record)",
    "each in a file of its own, with its process id behind this one's name",
)


def text_of(file: str, line: int, column: int | None, end_column: int | None, end_line: int) -> str:
    """The text of an expression as far as its first line, or of a line; empty if the file is not there."""
    text = source.line(file, line)
    if column is None or end_column is None:
        return text.strip()
    raw = text.encode("utf-8", "replace")
    if end_line > line:
        return raw[column:].decode("utf-8", "replace").strip() + " ..."
    return raw[column : end_column if end_column > column else None].decode("utf-8", "replace").strip()


class Usage(NamedTuple):
    """What one line or expression of the program asked for.

    Attributes
    ----------
    file, function : str
    line : int
    column, end_column : int or None
        Of an expression; `None` for a line, and where Python does not keep them.
    calls, bytes : int
        Arrays made, and the bytes asked for, summed.
    temporaries, temporary_bytes : int
        Of these: born and gone within one iteration; in a trace without iterations, on the same line.
    peak_bytes : int
        Of the most that was alive at once in the whole trace, what this made.
    lifetime, longest : float
        Seconds from making to freeing, in the mean and at most; 0 if nothing was freed.
    misses, fallbacks, failures : int
        Requests that no free memory at hand served; of these, what NumPy's default allocator served, and nobody.
    zeroed : int
        Asked for as zeros.
    scalars : int
        Of at most 16 bytes: NumPy makes an array of each Python number that it computes with.
    remote_frees : int
        Freed by another thread.
    warm : int
        Calls whose memory was used so recently that it may still be in the machine's caches.
    most_at_once : int
        The most of its arrays that were alive at once (of a line: of one of its expressions), scalars aside.
    least_size, largest_size : int
        Bytes of the smallest and the largest, scalars aside.
    end_line : int
        Where the expression ends; of a line: the line.
    """

    file: str
    function: str
    line: int
    column: int | None
    end_column: int | None
    calls: int
    bytes: int
    temporaries: int
    temporary_bytes: int
    peak_bytes: int
    lifetime: float
    longest: float
    misses: int
    fallbacks: int
    failures: int
    zeroed: int
    scalars: int
    remote_frees: int
    warm: int
    most_at_once: int
    least_size: int
    largest_size: int
    end_line: int = 0

    @property
    def source(self) -> str:
        """The text of the line or expression; empty if the file is not there."""
        return text_of(self.file, self.line, self.column, self.end_column, self.end_line)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class WorkingSet(NamedTuple):
    """How much distinct memory an iteration is handed out, beside the caches of the machine that recorded.

    Attributes
    ----------
    iterations : int
    median, largest : int
        Bytes of an iteration.
    level2, level3 : int
        Bytes of the caches.
    handed_out : dict of str to int
        Bytes of all requests by where their memory may have been: ``"level2"``, ``"level3"``, ``"memory"``: as little
        was handed out since it was last used; ``"new"``: not seen before.
    """

    iterations: int
    median: int
    largest: int
    level2: int
    level3: int
    handed_out: dict[str, int]

    @property
    def fits(self) -> str:
        """The smallest that holds the median iteration: ``"level2"``, ``"level3"`` or ``"memory"``."""
        return "level2" if self.median <= self.level2 else "level3" if self.median <= self.level3 else "memory"


class Miss(NamedTuple):
    """Requests of one granted size that no free memory at hand served, by reason.

    Attributes
    ----------
    granted, requested : int
        Bytes as the pool grants them, and the largest request.
    first : int
        The first of its size.
    more_alive : int
        More of that size were alive at once than ever before.
    given_back : int
        As many had been there, but were given back, serve other sizes, or are another thread's.
    refused : int
        The pool was frozen or at its limit: NumPy's default allocator served, or nobody.
    shared : str
        The shared pool that was asked; empty: private ones.
    """

    granted: int
    requested: int
    first: int
    more_alive: int
    given_back: int
    refused: int
    shared: str = ""

    @property
    def total(self) -> int:
        """All of them."""
        return self.first + self.more_alive + self.given_back + self.refused


class PoolUsage(NamedTuple):
    """What was asked of one pool.

    Attributes
    ----------
    name : str
        Pools of one name are one here.
    shared : bool
        Whether other processes have its memory open, too. Of such a pool this is what the recorded process made.
    calls, bytes, misses : int
        Arrays made, the bytes asked for, and requests that no free memory at hand served.
    peak_bytes : int
        The most alive at once in the pool.
    """

    name: str
    shared: bool
    calls: int
    bytes: int
    peak_bytes: int
    misses: int


class Difference(NamedTuple):
    """A line in two traces; `None` where one has it not."""

    before: Usage | None
    after: Usage | None

    def change(self, field: str) -> int:
        """How much more the second trace has of a field."""
        return int(getattr(self.after, field, 0) if self.after else 0) - int(
            getattr(self.before, field, 0) if self.before else 0
        )
