"""Recording: every allocation and free of pools, with its time and the place in the program that asked for it."""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np

from .. import _core
from .._support.options import choice, flag
from .._support.sizes import Size, parse_size
from .._support.workers import at_end_of_worker, once_set_up_as_worker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._pool.pool import Pool
    from .._shared.pool import SharedPool
    from .trace import Trace

T = TypeVar("T")

Stacks = Literal["none", "site", "full"]
Mode = Literal["events", "totals", "ring"]
STACKS = ("none", "site", "full")
MODES = ("events", "totals", "ring")

# As trace::Mark in src/trace/format.hpp.
ITERATION_BEGIN, ITERATION_END, SPAN_BEGIN, SPAN_END = 0, 1, 2, 3

_BUFFER = 8 << 20
_RING = 64 << 20

_lock = threading.Lock()
_running: record | None = None
_forks_are_watched = False


class RecordingReport(NamedTuple):
    """How a recording went.

    Attributes
    ----------
    events : int
        Allocations, frees and marks that are in the file.
    lost : int
        Events that are not: no buffer was free where the kernel may not be asked (a frozen pool).
    lost_by_limit : int
        Events that came when the file was as long as `limit` allows.
    dropped : int
        With ``mode="ring"``: older events that made room for later ones. That is what a ring is for, no loss.
    places_not_kept : int
        Events whose place could not be named, as there were more places than are kept.
    bytes : int
        Length of the file.
    error : str
        Why the file could not be written to its end; empty: it could.
    forked : int
        Children that the process forked meanwhile. They are not in the file: see `record`'s `children`.
    """

    events: int
    lost: int
    lost_by_limit: int
    dropped: int
    places_not_kept: int
    bytes: int
    error: str
    forked: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing was lost."""
        return not (self.lost or self.lost_by_limit or self.places_not_kept or self.error)


class Origin(NamedTuple):
    """Where an array's memory was asked for.

    Attributes
    ----------
    file, function : str
    line, end_line : int
    column, end_column : int or None
        Of the expression, from 0, in UTF-8 bytes, as `ast` counts them; `None` where Python does not keep them (3.10).
    age : float
        Seconds since then.
    """

    file: str
    function: str
    line: int
    end_line: int
    column: int | None
    end_column: int | None
    age: float

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class record:
    """Record what pools are asked for: each allocation and free with its time, size, thread and place in the program.

    Parameters
    ----------
    path : path, optional
        Where the trace goes; a file there is replaced. Default: it is kept in memory, for `trace`.
    pool : Pool or SharedPool, optional
        Record this one. Default: every pool of the process, also those made meanwhile.
    stacks : {"none", "site", "full"}, default "site"
        What is kept of the place: nothing; the line and expression of the program that called NumPy; the whole stack.
    mode : {"events", "totals", "ring"}, default "events"
        Every event; sums by place only, whose size does not grow with the time; or the last events that fit `limit`.
    limit : int or str, default "1 GiB"
        The longest the file may get; what comes later is counted. With ``"ring"`` the memory for events, at most 64 MiB
        unless given.
    children : bool, default False
        Record children made by fork as well, each to a file of its own: `path`, a dot and the child's process id. They
        begin with what they inherited. Default: the report only counts them.

    Raises
    ------
    RuntimeError
        When the process records already: there is one recording at a time.
    OSError, MemoryError
        When the file cannot be made or there is no memory for the buffers.
    ValueError
        For arguments that are wrong by themselves, and for `children` without a `path`.

    Notes
    -----
    Blocks that are alive when it begins come first, without a place. While a pool is frozen nothing here enters the
    kernel; events for which no buffer is free are counted as lost then.

    Of a shared pool a process records what it makes itself. Such a block ends when its memory is free again: with the
    last of all who hold it, and if that is another process, at the moment this one learns of it.

    With ``mode="totals"`` lifetimes are sums over a clock that is read every few milliseconds, at random: of a single
    block they are as coarse, the mean of many is right.

    What NumPy asks of other allocators is not seen: see `rtpool.Trace`.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> with rtpool.handler(), rtpool.record() as rec:
    ...     for number in rec.iterations(range(3)):
    ...         total = (np.ones(1000) * number).sum()
    >>> rec.report.complete
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        pool: Pool | SharedPool | None = None,
        stacks: Stacks = "site",
        mode: Mode = "events",
        limit: Size | None = None,
        children: bool = False,
    ) -> None:
        self._path = None if path is None else os.path.abspath(os.fspath(path))
        self._pool = pool
        if pool is not None and not isinstance(pool, (_core.Pool, _core.SharedPool)):
            raise TypeError(f"pool must be an rtpool.Pool or rtpool.SharedPool, not {pool!r}")
        self._children = flag(children, "children")
        if children and path is None:
            raise ValueError("children=True needs a path: each child writes a file of its own beside it")
        self._root = self._path
        self._forked = 0
        self._stacks = choice("stacks", stacks, STACKS)
        self._mode = choice("mode", mode, MODES)
        given = parse_size("1 GiB" if limit is None else limit, "limit")
        self._limit = _RING if limit is None and mode == "ring" else given
        self._file: BinaryIO | None = None
        self._process = 0
        self._report: RecordingReport | None = None
        self._spans: dict[str, int] = {}
        self._trace: Trace | None = None

    def __enter__(self) -> record:
        global _running
        with _lock:
            if _running is not None and _running._process == os.getpid():
                raise RuntimeError(f"{_running!r} is running; there is one recording at a time in a process")
            self._report = self._trace = None
            self._spans.clear()
            self._forked = 0
            _watch_forks()
            self._file = tempfile.TemporaryFile() if self._path is None else open(self._path, "w+b")  # noqa: SIM115
            meta = json.dumps(_meta(self)).encode()
            pools = None if self._pool is None else (self._pool,)
            try:
                # The recorder closes its descriptor itself.
                _core._record_start(
                    os.dup(self._file.fileno()), self._mode, self._limit, _BUFFER, self._stacks, meta, pools
                )
            except BaseException:
                self._file.close()
                raise
            self._process = os.getpid()
            _running = self
            atexit.register(self._finish)
            once_set_up_as_worker(self, record._finish_with_worker)
            self._finish_with_worker()
        return self

    def _finish_with_worker(self) -> None:
        at_end_of_worker(self._finish)

    def _go_on_in_child(self) -> None:
        """In a child that was forked just now: record it to a file of its own."""
        names = dict(self._spans)
        if self._file is not None:
            self._file.close()
        self._path = f"{self._root}.{os.getpid()}"
        self.__enter__()
        self._spans.update(names)
        for name, number in names.items():
            _core._record_span_name(number, name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def _finish(self) -> None:
        global _running
        with _lock:
            if _running is not self or self._process != os.getpid():
                return  # over already, or in a child
            counts = _core._record_stop()
            self._report = _report(counts, self._forked)
            _core._record_finish(json.dumps(_end(self._report)).encode())
            _running = None
            atexit.unregister(self._finish)
            if self._path is not None and self._file is not None:
                self._file.close()

    def iterations(self, iterable: Iterable[T]) -> Iterator[T]:
        """Go through `iterable` and mark each turn as one iteration in the trace.

        Examples
        --------
        >>> with rtpool.handler(), rtpool.record() as rec:
        ...     for frame in rec.iterations(range(10)):
        ...         image = np.zeros((64, 64))
        >>> rec.trace.file.count >= 40
        True
        """
        mark = _core._record_mark
        for number, item in enumerate(iterable):
            mark(ITERATION_BEGIN, number)
            try:
                yield item
            finally:
                mark(ITERATION_END, number)

    def span(self, name: str) -> Span:
        """Name a part of the program in the trace: ``with rec.span("filter"):``. They nest; each thread has its own."""
        if not isinstance(name, str):
            raise TypeError(f"a span's name is text, not {name!r}")
        with _lock:
            number = self._spans.get(name)
            if number is None:
                number = self._spans[name] = len(self._spans) + 1
                if _running is self:
                    _core._record_span_name(number, name)
        return Span(number)

    @property
    def report(self) -> RecordingReport:
        """How the recording went; while it runs: so far."""
        if self._report is not None:
            return self._report
        if _running is not self:
            raise RuntimeError("the recording has not begun: use `with rtpool.record(...) as rec:`")
        return _report(_core._record_report(), self._forked)

    @property
    def trace(self) -> Trace:
        """What was recorded, once it is over."""
        from .trace import Trace

        if self._report is None:
            raise RuntimeError("the recording is not over: its trace can be read after the `with`")
        if self._trace is None:
            if self._path is not None:
                self._trace = Trace.load(self._path)
            else:
                assert self._file is not None
                self._trace = Trace(self._file)
        return self._trace

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else f"to {self._path!r}"
        state = "over" if self._report is not None else "running" if _running is self else "not begun"
        return f"<rtpool.record {MODES[self._mode]} {where}, {state}>"


class Span:
    """The context of `record.span`."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        _core._record_mark(SPAN_BEGIN, self._number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core._record_mark(SPAN_END, self._number)


def origin(array: NDArray[Any]) -> Origin | None:
    """Say where in the program an array's memory was asked for, while it is recorded.

    Parameters
    ----------
    array : ndarray
        Views answer as the array that holds the memory.

    Returns
    -------
    Origin or None
        `None` if nothing is recorded (or with ``stacks="none"``), for memory that is in no recorded pool, and for
        arrays made before the recording began.

    Examples
    --------
    >>> with rtpool.handler(), rtpool.record():
    ...     a = np.zeros(1000)
    ...     print(rtpool.origin(a).function)
    <module>
    """
    found = _core._record_origin(array)
    if found is None:
        return None
    _, age, code, _, line, end_line, column, end_column = found
    unit = _seconds_a_unit()
    name = getattr(code, "co_qualname", code.co_name)
    first, last = (None, None) if column < 0 else (column, end_column)
    return Origin(code.co_filename, name, line, end_line, first, last, age * unit)


def begin_for_process(path: str, stacks: Stacks, *, first: bool, children: bool) -> None:
    """Begin a recording that ends with the process: of the `first` one of a run to `path`, of others beside it."""
    recording = record(path if first else f"{path}.{os.getpid()}", stacks=stacks, children=children)
    recording._root = os.path.abspath(path)
    recording.__enter__()


def is_recording() -> bool:
    """Whether this process records."""
    return _running is not None and _running._process == os.getpid()


_unit = 0.0


def _seconds_a_unit() -> float:
    """Seconds of a unit of the recorder's clock, measured once against the monotonic one."""
    global _unit
    if not _unit:
        counter, shift, *_ = _core._record_machine()
        _unit = _measured_unit() if counter else (1 << shift) / 1e9
    return _unit


def _measured_unit() -> float:
    begun, first = time.monotonic(), _core._record_now()
    while time.monotonic() - begun < 0.002:
        pass
    return (time.monotonic() - begun) / (_core._record_now() - first)


def _watch_forks() -> None:
    global _forks_are_watched
    if not _forks_are_watched:
        os.register_at_fork(after_in_parent=_count_fork, after_in_child=_leave_parent)
        _forks_are_watched = True


def _count_fork() -> None:
    if _running is not None:
        _running._forked += 1


def _leave_parent() -> None:
    """In a child: the recording is the parent's; whoever wanted children recorded gets one of its own."""
    global _lock, _running
    _lock = threading.Lock()
    _core._record_forked()
    of_parent, _running = _running, None
    if of_parent is not None and of_parent._children:
        of_parent._go_on_in_child()


def _report(counts: tuple[int, ...], forked: int) -> RecordingReport:
    events, lost, by_limit, dropped, size, error, unkept = counts
    return RecordingReport(events, lost, by_limit, dropped, unkept, size, os.strerror(error) if error else "", forked)


def _meta(recording: record) -> dict[str, Any]:
    counter, shift, level1, level2, level3 = _core._record_machine()
    return {
        "format": "rtpool-trace",
        "version": 1,
        "rtpool": _core.__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "process": os.getpid(),
        "arguments": sys.argv or [""],
        "directory": _directory(),
        "begun": time.time(),
        "clock": {"counter": bool(counter), "shift": shift},
        "caches": {"level1": level1, "level2": level2, "level3": level3},
        "mode": MODES[recording._mode],
        "stacks": STACKS[recording._stacks],
        "limit": recording._limit,
        "pools": _pools(recording),
        "children": recording._children,
    }


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _pools(recording: record) -> str:
    return "all" if recording._pool is None else recording._pool.name or "without a name"


def _end(report: RecordingReport) -> dict[str, Any]:
    return report._asdict() | {"ended": time.time()}


__all__ = ["Origin", "RecordingReport", "Span", "is_recording", "origin", "record"]
