"""Pools: the memory NumPy arrays draw their data from."""

import itertools
from typing import TYPE_CHECKING, Any, Literal

from .. import _core
from .._support import refusals
from .._support.durations import Duration, parse_duration
from .._support.errors import raise_if_broken
from .._support.options import HUGE_PAGES, ON_MISS, WHEN_FULL, choice, flag
from .._support.sizes import Size, as_given, format_size, parse_size
from .effective import Effective, creation_error, describe_refusal, read_effective
from .stats import Stats

if TYPE_CHECKING:
    from .debug import LiveBlock
    from .plan import Learning, Plan

HugePages = Literal["auto", "2MiB", "1GiB", False]
WhenFull = Literal["grow", "fallback", "raise"]
OnMiss = Literal["fallback", "raise"]

NAME_BYTES = 63  # as much as the core keeps

_numbers = itertools.count(1)
from_environment: set[int] = set()  # keys of pools whose options come from RTPOOL_ variables; these stay


class Pool(_core.Pool):
    """Memory made ready once and used again, for the data of NumPy arrays.

    Blocks are 64-byte aligned, from 4 KiB on page aligned, and come back in the order in which they were freed, so a
    loop that asks for the same sizes again gets the same warm memory without a kernel call. Arrays keep their pool
    alive; it goes with the last of them.

    Parameters
    ----------
    size : int or str, default 0
        Made ready at construction. Whole bytes or text; for the texts see the package, ``help(rtpool)``.
    name : str, optional
        For reports; at most 63 bytes in UTF-8. Default: ``"pool-1"``, ``"pool-2"``, ...
    limit : int or str, optional
        The most the pool may ever hold. Default: `size` if that is given and `when_full` is not ``"grow"``, else the
        physical memory of the machine (or of its memory cgroup).
    prefault : bool, default True
        Pages are resident before they are handed out, so that arrays never pay page faults.
    lock : bool, default False
        ``mlock`` the memory, so that it is never swapped out.
    huge_pages : {"auto", "2MiB", "1GiB", False}, default "auto"
        Transparent huge pages, explicit ones (hugetlb) of a size, or none.
    when_full : {"grow", "fallback", "raise"}, default "grow"
        Where nothing free fits: take more from the kernel up to `limit`; let NumPy's default allocator serve the
        request, counted in ``stats().fallbacks``; or have NumPy raise `MemoryError`. ``"grow"`` raises at the limit.
        The other two grow as well as long as `limit` allows.
    zero_on_free : bool, default False
        Clear blocks when they are freed.
    strict : bool, default False
        Raise when locking or huge pages cannot be had, instead of saying so in `effective`. With `debug`, also: abort
        the process after the first report, and make freed arrays of more than 4 KiB inaccessible.
    debug : bool, default False
        Find what extensions do wrong with the memory of arrays; for a search, not for production. See `outstanding`
        and the notes.
    idle : float, str, datetime.timedelta or None, default None
        What has not been used for so long goes back to the kernel by itself, in whole 2 MiB frames: seconds, or text
        such as ``"10 s"``. The default pool's is 10 s (``RTPOOL_IDLE``). Loops that keep using their memory pay nothing
        for it; a frozen pool, as in a real-time section, gives nothing back. Sooner where memory is short.
        Explicit huge pages stay.

    Raises
    ------
    ValueError, TypeError
        For arguments that are wrong by themselves.
    OSError
        With ``strict=True``, where the kernel refuses a lock or huge pages; ``errno`` says why.
    MemoryError
        When there is no memory or address space of that size.

    Notes
    -----
    A debug pool puts red zones around every block, fills fresh memory with 0xCD and freed memory with 0xDD, keeps freed
    blocks in quarantine (64 MiB or a quarter of the limit, the last one freed in any case), lets an inaccessible page
    follow each block of more than 4 KiB, and remembers the line of Python at which each block was made and freed.
    Overruns, underruns, double and foreign frees, and writes to freed memory are reported on standard error, with these
    lines, and counted in ``stats().misuses``: when the block is freed, when its memory is to be used again, by
    `check`, and when the process ends. Access to an inaccessible page ends the process with SIGSEGV, after a report;
    ``python -X faulthandler`` then shows the line at fault. A block takes 128 bytes to 12 KiB more, and some
    microseconds. Statistics, plans and all other methods speak of the arrays as in an ordinary pool, but guard pages
    cost kernel calls, also while frozen.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> pool = rtpool.Pool("16 MiB", name="frames")
    >>> with rtpool.handler(pool):
    ...     frame = np.ones(1_000_000)
    >>> frame in pool, rtpool.owner(frame).name
    (True, 'frames')
    """

    __slots__ = ()

    def __new__(
        cls,
        size: Size = 0,
        *,
        name: str | None = None,
        limit: Size | None = None,
        prefault: bool = True,
        lock: bool = False,
        huge_pages: HugePages = "auto",
        when_full: WhenFull = "grow",
        zero_on_free: bool = False,
        strict: bool = False,
        debug: bool = False,
        idle: Duration | None = None,
    ) -> "Pool":
        bytes_ready = parse_size(size, "size")
        most = 0 if limit is None else parse_size(limit, "limit")
        _check_limit(size, bytes_ready, limit, most)
        label = f"pool-{next(_numbers)}" if name is None else _checked_name(name)
        flags = {"prefault": prefault, "lock": lock, "zero_on_free": zero_on_free, "strict": strict, "debug": debug}
        for option, value in flags.items():
            flag(value, option)
        pages = choice("huge_pages", huge_pages, HUGE_PAGES)
        full = choice("when_full", when_full, WHEN_FULL)
        rest = 0 if idle is None else parse_duration(idle, "idle")
        try:
            pool = super().__new__(
                cls, bytes_ready, most, label, prefault, lock, pages, full, zero_on_free, strict, debug, rest
            )
        except _core.CreationFailure as failure:
            raise creation_error(failure.args, label, bytes_ready, huge_pages) from None
        refusals.register(pool)
        if pool.debug:
            from .debug import check_at_exit

            check_at_exit(pool)
        return pool

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self._name()

    @property
    def frozen(self) -> bool:
        """Whether the pool is frozen."""
        return self._frozen()

    @property
    def debug(self) -> bool:
        """Whether the pool finds misuse of its memory: made with ``debug=True``, or watched by a sanitizer."""
        return self._debug()

    @property
    def effective(self) -> Effective:
        """What was asked for and what is in force, with the reason and the fix where they differ."""
        objects = "pool" if _core.serves_objects(self) else "keep"
        return read_effective(self._asked(), self._effective())._replace(objects=objects)

    def _refusal(self, size: int, error: int, passed_on: bool) -> str:
        asked, effective = self._asked()["limit"], self.effective
        return describe_refusal(
            self.name,
            size,
            self.stats(),
            effective.limit,
            asked,
            "raise RTPOOL_LIMIT" if self._key() in from_environment else "raise limit=",
            error=error,
            passed_on=passed_on,
            frozen=self.frozen,
            cut=any(degradation.setting == "reserve" for degradation in effective.degradations),
        )

    def stats(self) -> Stats:
        """Counters as they stand; see `Stats`.

        Examples
        --------
        >>> pool = rtpool.Pool("1 MiB")
        >>> pool.stats().current_count
        0
        """
        return Stats._make(self._stats())

    def trim(self, older_than: Duration | None = None) -> int:
        """Give free memory back to the kernel, in whole 2 MiB frames.

        Arrays alive keep their contents. What was given back is taken from the kernel again when it is needed.

        Parameters
        ----------
        older_than : float, str, datetime.timedelta or None
            Only what has not been used for so long: seconds, or text such as ``"2 s"``. Ages are counted between looks:
            this method's, and those that a pool with `idle` is given by itself. At the first look at a pool, what is
            free counts as unused since the pool last grew.

        Returns
        -------
        int
            Bytes given back.
        """
        if older_than is None:
            return self._trim()
        return self._trim_idle(parse_duration(older_than, "older_than", zero=True))

    def reset_peak(self) -> None:
        """Let `peak_bytes` and `peak_count` of the statistics begin anew at what is alive now."""
        self._reset_peak()

    def freeze(self, on_miss: OnMiss = "fallback") -> None:
        """Let the pool make no kernel call any more, until `unfreeze`.

        Parameters
        ----------
        on_miss : {"fallback", "raise"}
            What becomes of requests for which nothing free fits: NumPy's default allocator serves them, counted in
            ``stats().fallbacks``, or NumPy raises `MemoryError`. Freezing a frozen pool changes this.
        """
        self._freeze(bool(choice("on_miss", on_miss, ON_MISS)))

    def unfreeze(self) -> None:
        """Let the pool grow again."""
        self._unfreeze()

    def learn(self) -> "Learning":
        """Learn what the iterations inside a ``with`` need, and make exactly that ready.

        The plan is filled in at the end of the ``with``; by then the pool holds, resident and in the calling thread,
        of every size as many blocks as were alive at once. Learning sees the requests of all threads. It begins the
        pool's `peak_bytes` anew. After an exception nothing is made ready.

        Returns
        -------
        context manager
            As the target of ``with ... as``: a `Plan`.

        Raises
        ------
        RuntimeError
            If the pool is frozen or learning already.
        MemoryError
            If the pool cannot hold what was learned.

        Examples
        --------
        >>> import numpy as np, rtpool
        >>> pool = rtpool.Pool()
        >>> with rtpool.handler(pool), pool.learn() as plan:
        ...     frame = np.empty((100, 100))
        >>> plan.bytes
        81920
        """
        from .plan import Learning

        return Learning(self)

    def prepare(self, plan: "Plan") -> None:
        """Make ready what a plan says, resident and in the calling thread, so that the first iteration finds it.

        The code and tables of all libraries loaded are made resident as well, so that the first iteration does not
        fault where it runs code for the first time: some 10 ms at the first call, nothing at later ones. So are the
        arenas that the plan's program took for Python's objects; those that the pool cannot hold (a quarter of its
        `limit` at most) are left to Python.

        Raises
        ------
        MemoryError
            If the pool cannot hold all of it; what could be made ready stays so.

        Examples
        --------
        >>> plan.save("loop.json")                                          # doctest: +SKIP
        >>> rtpool.default_pool().prepare(rtpool.Plan.load("loop.json"))    # doctest: +SKIP
        """
        from .objects import make_room
        from .plan import prepare

        prepare(self, plan)
        make_room(self, plan.objects)

    def check(self) -> None:
        """Walk all structures of the pool and compare them with their invariants. Slow; other threads wait.

        In a debug pool that includes the red zones of all arrays, and whether freed ones were written to.

        Raises
        ------
        CorruptionError
            With the first invariant that does not hold.
        """
        raise_if_broken(self, self._check())

    def outstanding(self) -> "list[LiveBlock]":
        """List the blocks of a debug pool that are alive, oldest first, with the line that made each.

        Returns
        -------
        list of LiveBlock
            What arrays, or whoever else holds NumPy memory, have not given back.

        Raises
        ------
        RuntimeError
            If the pool is no debug pool: ordinary pools do not remember who asked.

        Examples
        --------
        >>> pool = rtpool.Pool(debug=True)
        >>> with rtpool.handler(pool):
        ...     kept = [np.zeros(100) for _ in range(3)]
        >>> [block.size for block in pool.outstanding()]
        [800, 800, 800]
        """
        from .debug import outstanding

        return outstanding(self)

    def __repr__(self) -> str:
        stats = self.stats()
        blocks = stats.current_count + stats.fallback_count
        live = f"{format_size(stats.current_bytes)} in {blocks:,} live block{'' if blocks == 1 else 's'}"
        held = f"{format_size(stats.capacity_bytes)} held"
        marks = f"{', frozen' if self.frozen else ''}{', debug' if self.debug else ''}"
        return f"<rtpool.{type(self).__name__} {self.name!r}: {held}, {live}{marks}>"

    def _repr_html_(self) -> str:
        """What there is of it, its counters, and what is not in force as asked; for notebooks."""
        from .._support import html

        degraded = "".join(map(html.note, self.effective.degradations))
        return html.heading(repr(self)[1:-1]) + self.stats()._repr_html_() + degraded

    def _asked(self) -> dict[str, Any]:
        """The arguments this pool was made with."""
        size, limit, name, prefault, lock, pages, full, zero_on_free, strict, debug, idle = self._options()
        return {
            "size": size,
            "name": name,
            "limit": limit or None,
            "prefault": prefault,
            "lock": lock,
            "huge_pages": HUGE_PAGES[pages],
            "when_full": WHEN_FULL[full],
            "zero_on_free": zero_on_free,
            "strict": strict,
            "debug": debug,
            "idle": idle / 1e9 if idle else None,
        }

    def _twin(self) -> "Pool":
        """Another pool of the same options, for the thread that asks."""
        import threading

        asked = self._asked()
        asked["name"] = _cut_name(f"{asked['name']}/{threading.current_thread().name}")
        twin = type(self)(asked.pop("size"), **asked)
        twin._restrain(*self._restraint())
        return twin


def _checked_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {type(name).__name__}")
    if not name or "\0" in name or len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES:
        raise ValueError(f"name must have 1 to {NAME_BYTES} bytes in UTF-8 and no NUL, got {name!r}")
    return name


def _cut_name(name: str) -> str:
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


def _check_limit(size: Size, ready: int, limit: Size | None, most: int) -> None:
    if limit is not None and most == 0:
        raise ValueError("limit must be more than 0; leave it out for the physical memory of this machine")
    if limit is not None and most < ready:
        raise ValueError(f"limit of {as_given(limit)} is below the size of {as_given(size)} to make ready")
    memory = _core.physical_memory() if limit is None and ready != 0 else 0
    if 0 < memory < ready:
        raise MemoryError(
            f"size of {as_given(size)} is more than the {format_size(memory)} of physical memory;"
            " ask for less, or set limit= as well if swap is meant to be used"
        )


_core._set_pool_class(Pool)
