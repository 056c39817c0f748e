"""`realtime`: a loop that meets its deadlines, and knows whether it did."""

from __future__ import annotations

import datetime
import gc as collection
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, SupportsIndex

from .. import _core
from .._handler.handler import handler
from .._pool.default import default_pool
from .._pool.effective import Degradation
from .._pool.plan import Learning, Plan, prepare
from .._pool.pool import OnMiss, Pool
from .._pool.stats import Stats
from .._support.durations import Duration
from .._support.options import flag, word
from . import arguments, machine
from .arenas import Arenas
from .collector import GcMode, collector
from .environment import RunsAt
from .interrupt import Interrupt
from .prepare import HeapRoom, look_through_the_stack, prepare_thread
from .process import Freeze, Misses, frozen_by_section, reconsider
from .report import Report, make_report

if TYPE_CHECKING:
    from types import TracebackType

# Blocks below a page come from slabs, whose clearing costs less than looking after it.
_LEAST_ZEROED_AHEAD = 4096


class realtime:  # noqa: N801 - used like a function, as `contextlib.suppress`
    """A real-time section: the pool's handler, learned and frozen memory, a quiet process, deadlines, and a record.

    ``with rtpool.realtime(0.001, warmup=100) as rt:`` prepares the process, ``for tick in rt:`` runs its body every
    millisecond, `report` says how it went. Everything is restored at the end, also after an exception. Sections nest,
    and threads may each have one of their own; a section belongs to the thread that enters it, and may be entered
    again.

    With a warm-up or a plan it also touches what the loop would touch for the first time: code and data of all
    libraries that are loaded, up to 5 MiB of the thread's stack, BLAS's buffers (by some small matrix products), stacks
    and heaps for four threads, and the memory that a fork has made common with another process: 1 GiB of it at most,
    256 MiB where that process lives, small pieces first. Not covered: modules imported in the loop, more threads and
    forks in it, files it maps. `report` names what faulted, what was imported, and what to do.

    Parameters
    ----------
    period : float, str or datetime.timedelta, optional
        From one iteration's start to the next: seconds, or as people write it: ``"5 ms"``, ``"500 us"``, ``"200 Hz"``,
        a time delta; so for the other times too. Iteration ``k`` is due at ``start + k * period`` however long those
        before it took. Without a period each iteration follows the one before at once.
    pool : Pool, optional
        Default: `rtpool.default_pool()`. Threads that learn at the same time need a pool each.
    warmup : int, default 0
        Iterations before the measured ones. The pool learns what they need, makes it ready, and freezes. They are not
        in the report; their ``tick.index`` counts up to -1.
    gc : {"freeze", "disable", "keep"}
        Python's cyclic garbage collector, from the last warm-up iteration on. ``"freeze"``: collect, set everything
        that is alive aside (``gc.freeze``), and disable; ``"disable"``: only that. Reference counting goes on; cycles
        made inside stay until the section ends. A program that uses ``gc.freeze`` itself keeps what it froze as it is.
    malloc : {"tune", "keep"}
        ``"tune"`` sets libc's malloc to keep its memory, for what bypasses NumPy's handlers: scratch of sorts and
        iterators, work arrays of LAPACK, tables of pandas. Changed are M_TRIM_THRESHOLD (heaps are never trimmed),
        M_MMAP_MAX (blocks of every size come from the heaps) and M_TOP_PAD (heaps grow in steps of 64 MiB). It concerns
        the whole process and **lasts after the section**: libc does not tell what the settings were. The price is
        memory that stays resident. Of the thread's heap 4 MiB more are made so than the warm-up took (16 MiB at
        most), for what comes to lie elsewhere in the loop.
    objects : {"pool", "keep"}
        ``"pool"`` lets Python take the arenas in which it keeps its own small objects from the pool while the section
        runs (see `activate`). They are part of the plan, and made ready with one to spare. Python gives arenas back
        to the kernel when they run empty and asks anew, page faults and all; here they are kept, also those it had
        before. One that is asked for beyond what is ready is counted in ``report.misses``; Python's own allocator
        serves it, once. ``report.objects`` says what was done, or why nothing could be.
    lock_process : bool, default False
        ``mlockall``: all memory of the process, present and future, is resident and never swapped out. What pools have
        given back to the kernel stays there, and so does what free-threaded Python has reserved for objects to come.
    priority : int, optional
        1 to 99: run the thread under ``SCHED_FIFO``. A loop that never waits then keeps everything else off its
        processor.
    cpu : int or iterable of int, optional
        The processors this thread may run on.
    inherit : bool, default False
        Whether threads and processes that this thread starts inside begin with its `priority` and `cpu`. Otherwise they
        begin as they would without the section: Python's threads, those that libraries make (BLAS, OpenMP), and
        processes by ``subprocess``, ``multiprocessing`` or ``os``. Beyond that is who makes the system call himself
        (Go), and what a library starts that was loaded inside; of those, children of a privileged thread still have no
        priority.
    on_miss : {"fallback", "raise"}
        Requests the frozen pool cannot serve: NumPy's default allocator takes them, or `MemoryError`. Both are counted
        in ``report.misses`` and named in ``report.deviations``.
    iterations : int, optional
        End each ``for`` after so many measured iterations.
    duration : float, str or datetime.timedelta, optional
        End each ``for`` when the next iteration would begin later than this (``60``, ``"1 min"``) after the first
        measured one.
    overrun : {"skip", "catch-up"}
        After an iteration that ended past its deadline: leave out the instants that have passed, or run every
        iteration, late ones at once.
    plan : Plan, optional
        What to make ready on entering, as `Pool.prepare` does.
    zero_ahead : bool, default True
        In the idle time before a deadline, clear the blocks that the plan says will be asked for as zeroed, so that
        ``np.zeros`` costs what ``np.empty`` does. It never works past the deadline.
    spin : float, str or datetime.timedelta, default 0
        How long before each deadline to look at the clock instead of sleeping (``"50 us"``): less lateness for a busy
        processor.
    cpu_latency : int, str or datetime.timedelta, optional
        Keep the processors out of idle states that take longer than this to leave (``/dev/cpu_dma_latency``):
        microseconds, or ``"20 us"``; 0 for none at all.
    on_interrupt : {"stop", "raise"}
        Ctrl-C during a ``for``: finish the iteration and end the loop, so that the program goes on with its report (a
        second Ctrl-C raises); or raise `KeyboardInterrupt` at once. Only where the program has no handler of its own.
    strict : bool, default False
        Raise `OSError` when the machine does not permit a setting that was asked for. Otherwise `degradations` and the
        report name it, with the fix.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> frame = np.zeros((480, 640), np.uint8)
    >>> with rtpool.realtime(0.001, warmup=20, iterations=100) as rt:
    ...     for tick in rt:
    ...         image = frame.astype(np.float32) / 255
    >>> rt.report.iterations, rt.report.misses, rt.report.kernel_calls
    (100, 0, 0)
    """

    __slots__ = (
        "_entered", "_errors", "_faults", "_freeze", "_gc", "_interrupt", "_learning", "_loop", "_malloc", "_misses",
        "_on_interrupt", "_on_miss", "_pacing", "_plan", "_pool", "_report", "_runs_at", "_settings", "_stats_after",
        "_stats_before", "_strict", "_undo", "_wanted", "_zero_ahead", "_zeroed_missing", "_given_plan", "_given_pool",
        "_arenas", "_heap", "_imported", "_modules", "_wants_objects",
    )  # fmt: skip

    def __init__(
        self,
        period: Duration | None = None,
        *,
        pool: Pool | None = None,
        warmup: SupportsIndex = 0,
        gc: GcMode = "freeze",
        malloc: Literal["tune", "keep"] = "tune",
        objects: Literal["pool", "keep"] = "pool",
        lock_process: bool = False,
        priority: SupportsIndex | None = None,
        cpu: SupportsIndex | Iterable[SupportsIndex] | None = None,
        inherit: bool = False,
        on_miss: OnMiss = "fallback",
        iterations: SupportsIndex | None = None,
        duration: Duration | None = None,
        overrun: Literal["skip", "catch-up"] = "skip",
        plan: Plan | None = None,
        zero_ahead: bool = True,
        spin: Duration = 0.0,
        cpu_latency: SupportsIndex | str | datetime.timedelta | None = None,
        on_interrupt: Literal["stop", "raise"] = "stop",
        strict: bool = False,
    ) -> None:
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(f"pool must be a Pool, which can learn and be frozen, not {type(pool).__name__}")
        if plan is not None and not isinstance(plan, Plan):
            raise TypeError(f"plan must be a Plan, not {type(plan).__name__}; read files with Plan.load")
        self._given_pool = pool
        self._given_plan = plan
        self._pacing = arguments.pacing(period, overrun, spin, warmup, iterations, duration)
        self._gc = word(gc, "gc", ("freeze", "disable", "keep"))
        self._malloc = word(malloc, "malloc", ("tune", "keep"))
        self._wants_objects = word(objects, "objects", ("pool", "keep")) == "pool"
        self._on_miss = word(on_miss, "on_miss", ("fallback", "raise"))
        self._on_interrupt = word(on_interrupt, "on_interrupt", ("stop", "raise"))
        self._zero_ahead = flag(zero_ahead, "zero_ahead")
        self._strict = flag(strict, "strict")
        self._wanted = machine.Wanted(
            arguments.processors(cpu),
            flag(lock_process, "lock_process"),
            arguments.latency(cpu_latency),
            0 if priority is None else arguments.whole(priority, "priority", 1, 99),
            flag(inherit, "inherit"),
        )
        self._entered = False
        self._undo: list[Callable[[], object]] = []
        self._loop: _core.Loop | None = None
        self._report: Report | None = None
        self._forget()

    def _forget(self) -> None:
        self._pool: Pool | None = None
        self._plan = self._given_plan
        self._errors: tuple[Degradation, ...] = ()
        self._faults: _core.RawFaults | None = None
        self._learning: Learning | None = None
        self._freeze: Freeze | None = None
        self._interrupt: Interrupt | None = None
        self._misses: Misses = {}
        self._stats_before: Stats | None = None
        self._stats_after: Stats | None = None
        self._runs_at: RunsAt = ("", 0, 0, ())
        self._zeroed_missing = 0
        self._report = None
        self._arenas = Arenas()
        self._heap: HeapRoom | None = None
        self._modules: frozenset[str] | None = None  # imported before the measured iterations
        self._imported: tuple[str, ...] = ()

    def __enter__(self) -> realtime:
        if self._entered:
            raise RuntimeError("this real-time section is running already; nested sections need objects of their own")
        self._forget()
        pool = default_pool() if self._given_pool is None else self._given_pool
        if self._pacing.warmup and (pool.frozen or frozen_by_section(pool)):
            raise RuntimeError(
                f"pool {pool.name!r} is frozen, so warm-up cannot learn on it; use warmup=0 or a pool of its own"
            )
        self._entered, self._pool = True, pool
        try:
            self._enter(pool)
        except BaseException:
            self._leave()
            raise
        return self

    def _enter(self, pool: Pool) -> None:
        if self._given_plan is not None or self._pacing.warmup:
            prepare_thread(locked=self._wanted.lock_process)
        self._apply_settings(pool)
        if (leave := self._arenas.enter(pool, wanted=self._wants_objects)) is not None:
            self._undo.append(leave)
        loop = self._loop = _core.Loop(*self._pacing, self._warm_up)
        loop.start(threading.get_ident() == threading.main_thread().ident)
        if self._pacing.warmup <= 1:
            self._calm_down()
        if self._given_plan is not None:
            look_through_the_stack()
        around = handler(pool)
        around.__enter__()
        self._undo.append(lambda: around.__exit__(None, None, None))
        if self._pacing.warmup:
            if self._given_plan is not None:
                prepare(pool, self._given_plan)
            self._begin_learning(pool)
            self._stats_before = None
        else:
            self._settle(pool)
        collection.callbacks.append(loop.note_collection)
        self._undo.append(lambda: collection.callbacks.remove(loop.note_collection))

    def _apply_settings(self, pool: Pool) -> None:
        degradations: list[Degradation] = []
        if self._malloc == "tune":
            if _core.tune_malloc():
                self._heap = HeapRoom(pool)
            else:
                degradations.append(
                    Degradation("malloc", 0, 0, 0, "this libc's malloc takes no such settings", 'use malloc="keep"')
                )
        if not self._wanted.nothing:
            settings = _core.MachineSettings()
            self._undo.append(lambda: _raise_errno(settings.restore(), "restoring the settings of the machine"))
            degradations += machine.apply(settings, self._wanted)
        self._errors = tuple(degradations)
        if degradations and self._strict:
            first = degradations[0]
            raise OSError(first.error, f"strict=True, and {first}")
        policy, priority, nice, _ = _core.thread_scheduling()
        self._runs_at = (policy, priority, nice, tuple(sorted(os.sched_getaffinity(0))))

    def _begin_learning(self, pool: Pool) -> None:
        learning = Learning(pool)
        learning.__enter__()
        self._learning = learning

        def abandon() -> None:
            if self._learning is not None:
                self._learning.finish()
                self._learning.forget()
                self._learning = None
                reconsider(pool)

        self._undo.append(abandon)

    def _warm_up(self, left: int) -> None:
        """One warm-up iteration is left, or none."""
        pool, learning = self._pool, self._learning
        assert pool is not None and learning is not None
        if left == 1:
            if self._heap is not None:
                self._heap.make(pool)
            self._calm_down()
            return
        self._learning = None
        try:
            learned = learning.finish()
            reconsider(pool)
            self._plan = learned if self._given_plan is None else self._given_plan | learned
            self._settle(pool, learning)
        finally:
            learning.forget()

    def _calm_down(self) -> None:
        """What goes through much memory comes before the last warm-up iteration, which brings the loop's own back."""
        if self._gc != "keep":
            mode = self._gc
            collector.enter(mode)  # type: ignore[arg-type]
            self._undo.append(lambda: collector.leave(mode))  # type: ignore[arg-type]
        if self._given_plan is not None or self._pacing.warmup:
            assert self._pool is not None and self._loop is not None
            _core.make_program_resident()
            _core.make_object_room()
            self._loop.make_ready()
            if self._heap is not None:
                self._heap.begin(self._pool)

    def _settle(self, pool: Pool, learned: Learning | None = None) -> None:
        """From here on the plan is ready, the pool frozen, and the counters count."""
        if self._plan is not None:
            prepare(pool, self._plan)
        self._arenas.make_room(pool, self._plan, learned.arenas_held() if learned is not None else 0)
        freeze = self._freeze = Freeze(pool, self._on_miss)  # type: ignore[arg-type]

        def release() -> None:
            self._stats_after = pool.stats()
            self._arenas.end()
            self._misses = freeze.release()
            self._freeze = None

        self._arenas.begin()
        self._undo.append(release)
        self._choose_zero_ahead(pool)
        self._modules = frozenset(sys.modules)
        if self._heap is not None:
            self._heap.make(pool)
        self._stats_before = pool.stats()

    def _imported_now(self) -> tuple[str, ...]:
        if self._modules is None:
            return self._imported
        return tuple(name for name in list(sys.modules) if name not in self._modules)

    def _choose_zero_ahead(self, pool: Pool) -> None:
        if not self._zero_ahead or not self._pacing.period or not self._plan:
            return
        wanted = [
            (entry.size, entry.most_alive)
            for entry in reversed(self._plan.entries)
            if entry.zeroed and entry.size >= _LEAST_ZEROED_AHEAD
        ]
        if wanted:
            assert self._loop is not None
            self._zeroed_missing = len(wanted) - self._loop.zero_ahead(pool, wanted)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        failure: BaseException | None = None
        self._imported = self._imported_now()
        self._modules = None
        if self._loop is not None:
            try:
                self._loop.finish()
                # Now, while what the loop used is still there to be looked at.
                self._faults = self._loop.faults()
            except BaseException as error:
                failure = error
        while self._undo:
            try:
                self._undo.pop()()
            except BaseException as error:  # the rest must be restored all the same
                failure = failure or error
        self._entered = False
        self._report = None
        if failure is not None:
            raise failure

    def __iter__(self) -> Iterator[_core.Tick]:
        loop = self._running()
        if self._on_interrupt == "stop" and self._interrupt is None:
            interrupt = Interrupt(loop.is_iterating, loop.stop)
            if interrupt.install():
                self._interrupt = interrupt
                self._undo.append(interrupt.remove)
        return iter(loop)

    def iteration(self) -> Iteration:
        """One iteration of a loop that paces itself: ``with rt.iteration() as tick:`` around what is to be measured.

        For loops that wait for a camera or a socket. An iteration longer than the section's period counts as an
        overrun. One that ends with an exception is not counted.

        Examples
        --------
        >>> with rtpool.realtime(warmup=2) as rt:
        ...     for number in range(12):
        ...         with rt.iteration():
        ...             product = np.ones(1000) * number
        >>> rt.report.iterations
        10
        """
        return Iteration(self._running())

    def stop(self) -> None:
        """End the section's loop after the iteration under way. Any thread may call it; a wait ends within 50 ms."""
        if self._loop is not None:
            self._loop.stop()

    @property
    def pool(self) -> Pool:
        """The pool of the section."""
        if self._pool is None:
            raise RuntimeError("the real-time section has not been entered")
        return self._pool

    @property
    def plan(self) -> Plan | None:
        """What was made ready: learned during warm-up, given, or both; `None` without either."""
        return self._plan

    @property
    def degradations(self) -> tuple[Degradation, ...]:
        """Settings that were asked for and are not in force, each with the reason and the fix."""
        return self._errors

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the loop."""
        return self._interrupt is not None and self._interrupt.count > 0

    @property
    def report(self) -> Report:
        """How the measured iterations went; while the section runs: so far, for its own thread."""
        if self._report is None:
            report = self._make_report()
            if self._entered:
                return report
            self._report = report
        return self._report

    def _make_report(self) -> Report:
        loop, pool = self._loop, self._pool
        if loop is None or pool is None:
            raise RuntimeError("the real-time section has not been entered, there is nothing to report")
        after = pool.stats() if self._stats_after is None else self._stats_after
        return make_report(
            loop,
            pool,
            faults=self._faults,
            period=self._pacing.period,
            imported=self._imported_now(),
            change=Stats() if self._stats_before is None else after - self._stats_before,
            deviations=self._misses if self._freeze is None else self._freeze.misses(),
            objects=self._arenas.state,
            interrupted=self.interrupted,
            runs_at=self._runs_at,
            wanted=self._wanted,
            degradations=self._errors,
        )

    def _running(self) -> _core.Loop:
        if not self._entered or self._loop is None:
            raise RuntimeError("the real-time section has not been entered: use `with rtpool.realtime(...) as rt:`")
        return self._loop

    def __repr__(self) -> str:
        pace = f"every {self._pacing.period / 1e6:g} ms" if self._pacing.period else "without a period"
        state = "running" if self._entered else "over" if self._loop is not None else "not entered"
        return f"<rtpool.realtime {pace}, {state}>"


class Iteration:
    """The context of `realtime.iteration`."""

    __slots__ = ("_loop",)

    def __init__(self, loop: _core.Loop) -> None:
        self._loop = loop

    def __enter__(self) -> _core.Tick:
        return self._loop.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.end(kind is None)


def _raise_errno(error: int, doing: str) -> None:
    if error:
        raise OSError(error, f"{doing}: {os.strerror(error)}")


__all__ = ["Iteration", "realtime"]
