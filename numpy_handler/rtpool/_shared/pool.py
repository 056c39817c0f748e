"""Shared pools: memory whose arrays other processes can open."""

from __future__ import annotations

import errno as errno_names
import os
from types import TracebackType
from typing import Any, Literal
from weakref import WeakValueDictionary

from .. import _core
from .._pool.effective import Effective, describe, describe_refusal, read_effective
from .._pool.stats import Stats
from .._support import refusals
from .._support.errors import CorruptionError, raise_if_broken
from .._support.options import HUGE_PAGES, choice, flag
from .._support.sizes import Size, comes_out_in_decimals, format_size, parse_size
from .stats import SharedStats

HugePages = Literal["auto", "2MiB", "1GiB", False]
WhenFull = Literal["fallback", "raise"]

NAME_LENGTH = 200
_CREATE, _BY_NAME, _BY_ADDRESS = range(3)

_objects: WeakValueDictionary[bytes, SharedPool] = WeakValueDictionary()


class SharedPool(_core.SharedPool):
    """A pool whose memory other processes can open; made by `create` or `attach`, used wherever a `Pool` is.

    Arrays made under ``rtpool.handler(pool)`` are ordinary arrays. `share` gives a small handle of one, or of a view of
    it; the process that gets the handle opens it and has an array over the same memory, without a copy. A block is free
    again when the last process has dropped it, whoever made it. Processes may end in any order and be killed at any
    instant: what they held comes back, what others hold stays.

    After a fork the child has the pool open, too. What lived at the fork keeps its memory until the child ends, as it
    would in private memory; but both look at the same bytes.

    Two processes that write to one array, or one that reads while another writes, need a protocol of their own for
    whose turn it is; handing handles on through a queue is one.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> with rtpool.SharedPool.create("64 MiB") as pool:
    ...     with rtpool.handler(pool):
    ...         frame = np.zeros((1080, 1920, 3), np.uint8)
    ...     handle = pool.share(frame[::2])
    ...     half = handle.open(writeable=False)  # usually in another process
    >>> half.shape, np.shares_memory(half, frame), rtpool.owner(half) == pool
    ((540, 1920, 3), False, True)
    """

    __slots__ = ("_asked",)

    _asked: dict[str, Any]

    @classmethod
    def create(
        cls,
        size: Size,
        *,
        name: str | None = None,
        huge_pages: HugePages = "auto",
        lock: bool = False,
        prefault: bool = True,
        when_full: WhenFull = "raise",
        strict: bool = False,
    ) -> SharedPool:
        """Make a shared pool.

        Parameters
        ----------
        size : int or str
            What all processes together can have in it; fixed.
        name : str, optional
            By which unrelated processes of the same user find it (mode 0600): letters, digits, ``.``, ``-`` and ``_``.
            A named pool stays until `unlink`, as files do. Without a name there is nothing in the file system: the
            memory goes with its last user, and processes get at it by receiving a handle or the pool itself.
        huge_pages : {"auto", "2MiB", "1GiB", False}, default "auto"
            Transparent huge pages where the kernel has them for shared memory, explicit ones (nameless pools only), or
            none.
        lock : bool, default False
            ``mlock`` the memory in this process.
        prefault : bool, default True
            All pages are resident before this returns, so that arrays never pay page faults.
        when_full : {"raise", "fallback"}, default "raise"
            Where nothing free fits: have NumPy raise `MemoryError`, or let its default allocator serve the request,
            counted in ``stats().fallbacks``; such an array cannot be shared.
        strict : bool, default False
            Raise when locking or huge pages cannot be had, instead of saying so in `effective`.

        Returns
        -------
        SharedPool

        Raises
        ------
        FileExistsError
            A living process has a pool of that name open. One that only dead processes had is taken over.
        MemoryError
            There is no memory of that size (for named pools: in ``/dev/shm``).
        OSError
            With ``strict=True``, where the kernel refuses a lock or huge pages.
        ValueError, TypeError
            For arguments that are wrong by themselves.

        Notes
        -----
        Names that crashed processes left behind, of any pool, are removed on the way.
        """
        bytes_ready = parse_size(size, "size")
        if bytes_ready == 0:
            raise ValueError("a shared pool does not grow, so its size must be given and not 0")
        asked = _asked_options(bytes_ready, huge_pages, lock, prefault, when_full, strict)
        label = "" if name is None else _checked_name(name)
        return cls._make(_CREATE, label, asked, label)

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        huge_pages: HugePages = "auto",
        lock: bool = False,
        prefault: bool = True,
        when_full: WhenFull = "raise",
        strict: bool = False,
    ) -> SharedPool:
        """Open the pool of that name, which another process of the same user has made.

        Parameters
        ----------
        name : str
        huge_pages, lock, prefault, when_full, strict
            As in `create`, for this process's view of the pool.

        Returns
        -------
        SharedPool

        Raises
        ------
        FileNotFoundError
            There is no pool of that name.
        PermissionError
            It belongs to another user, or others may write to it.
        CorruptionError
            What has that name is no pool of this version of rtpool, or is damaged.
        """
        asked = _asked_options(0, huge_pages, lock, prefault, when_full, strict)
        label = _checked_name(name)
        return cls._make(_BY_NAME, label, asked, label)

    @classmethod
    def _make(cls, how: int, where: object, asked: dict[str, Any], label: str) -> SharedPool:
        pages = choice("huge_pages", asked["huge_pages"], HUGE_PAGES)
        fall_back = asked["when_full"] == "fallback"
        try:
            pool = cls.__new__(
                cls, how, where, asked["size"], asked["prefault"], asked["lock"], pages, fall_back, asked["strict"]
            )
        except _core.CreationFailure as failure:
            raise _creation_error(how, failure.args, label, asked) from None
        given = asked["size"] or pool.size  # whose was rounded up to pages
        pool._asked = asked | {"size": given, "limit": given}
        _objects[pool._address()[0]] = pool
        refusals.register(pool)
        return pool

    @property
    def name(self) -> str | None:
        """The name of the pool, `None` for a nameless one."""
        return self._name() or None

    @property
    def size(self) -> int:
        """Bytes all processes together can have in the pool."""
        return self._geometry()[0]

    def _refusal(self, size: int, error: int, passed_on: bool) -> str:
        if self.closed:
            return f"shared pool {self.name!r} is closed"
        return describe_refusal(
            self.name or "without a name",
            size,
            self.stats(),
            self.size,
            self._asked["limit"],
            "create it with a larger size",
            error=error,
            passed_on=passed_on,
        )

    @property
    def closed(self) -> bool:
        """Whether this object was closed."""
        return self._closed()

    @property
    def effective(self) -> Effective:
        """What was asked for and what is in force, with the reason and the fix where they differ."""
        return read_effective(self._asked, self._effective())

    def share(self, array: Any) -> _core.SharedArray:
        """Give a handle by which other processes open an array of this pool.

        Parameters
        ----------
        array : ndarray
            Made under ``rtpool.handler(pool)``, opened from a handle, or a view of one of these. One that is read-only
            opens read-only.

        Returns
        -------
        SharedArray
            Small and picklable. It keeps the memory until it is opened or dropped, and so does each pickled copy of it
            under way: through `multiprocessing` queues, pipes and pools, `concurrent.futures`, or any other channel.

        Raises
        ------
        TypeError
            For dtypes whose elements are pointers (objects, variable-length strings), and for subclasses of ndarray
            (masked arrays, matrices, record arrays): a handle does not carry what they add.
        ValueError
            The array's data are not in this pool.
        MemoryError
            As many arrays are shared as there are records for (``size / 16 KiB``, at least 256, at most 65,536).

        Notes
        -----
        Pickling a handle counts as sending it once: load the bytes once. A handle that is sent and never loaded keeps
        its memory; see `reclaim`.
        """
        return self._share(array)

    def stats(self) -> SharedStats:
        """Counters as they stand; see `SharedStats`."""
        figures = self._stats()
        own = len(Stats._fields)
        return SharedStats(Stats._make(figures[:own]), *figures[own:])

    def trim(self) -> int:
        """Give unused memory back: this process's to the pool, and a nameless pool's to the kernel, in whole 2 MiB.

        Returns
        -------
        int
            Bytes given back to the kernel.
        """
        return self._trim()

    def reset_peak(self) -> None:
        """Let `peak_bytes` and `peak_count` of the statistics begin anew at what is alive now."""
        self._reset_peak()

    def recover(self) -> bool:
        """Take back what dead processes held. Happens by itself when the pool is full and when a process joins.

        Returns
        -------
        bool
            False if another process is doing so at this moment.
        """
        return self._recover()

    def reclaim(self, older_than: float = 60.0) -> int:
        """Give up handles that were sent and have not been opened.

        For receivers that were killed before they opened what was sent to them. When the pool is full, handles of dead
        senders that are older than a minute are given up without being asked.

        Parameters
        ----------
        older_than : float, default 60.0
            Seconds since the last handle of an array was sent. 0 gives up all of them.

        Returns
        -------
        int
            Handles given up. Opening one of them later raises `LookupError`, unless somebody else kept the array.
        """
        if older_than < 0:
            raise ValueError(f"older_than must not be negative, got {older_than!r}")
        return self._reclaim(min(int(-(-older_than // 1)), 0xFFFFFF))

    def check(self) -> None:
        """Walk the invariants of the pool, after a recovery. Other processes may go on meanwhile.

        Raises
        ------
        CorruptionError
            The first invariant that does not hold, with its id.
        """
        raise_if_broken(self, self._check())

    def close(self) -> None:
        """Make nothing in this pool any more through this object. Arrays stay valid; the last to go leaves the pool.

        Entering ``rtpool.handler(pool)`` afterwards raises `ValueError`.

        Other processes are not concerned, and a name stays (see `unlink`).
        """
        self._close()

    def unlink(self) -> None:
        """Remove the pool's name, so that nobody can `attach` any more. Who has the pool open keeps it.

        Raises
        ------
        FileNotFoundError
            The name was removed already.
        """
        error = self._unlink()
        if error == errno_names.EINVAL:
            return  # nameless: there is nothing to remove
        if error != 0:
            raise OSError(error, os.strerror(error), self.name)

    def __enter__(self) -> SharedPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach_address, (self._address(), self._asked | {"size": 0})

    def __repr__(self) -> str:
        label = "nameless" if self.name is None else repr(self.name)
        return f"<rtpool.SharedPool {label}, {format_size(self.size)}{', closed' if self.closed else ''}>"


def _attach_address(address: tuple[bytes, int, int], asked: dict[str, Any]) -> SharedPool:
    """Open a pool that was pickled: through the process that sent it, or any other that has it open."""
    asked = {key: asked[key] for key in ("size", "huge_pages", "lock", "prefault", "when_full", "strict")}
    return SharedPool._make(_BY_ADDRESS, address, asked, address[0].hex())


def pool_at(address: int) -> SharedPool | None:
    """Give the open shared pool whose memory holds an address."""
    identity = _core._shared_pool_at(address)
    if identity is None:
        return None
    known = _objects.get(identity)
    if known is not None and not known.closed:
        return known
    return _attach_address((identity, 0, -1), _asked_options(0, "auto", False, True, "raise", False))


def _asked_options(
    size: int, huge_pages: object, lock: object, prefault: object, when_full: object, strict: object
) -> dict[str, Any]:
    for option, value in {"lock": lock, "prefault": prefault, "strict": strict}.items():
        flag(value, option)
    choice("huge_pages", huge_pages, HUGE_PAGES)
    choice("when_full", when_full, ("raise", "fallback"))
    return {
        "size": size,
        "huge_pages": huge_pages,
        "lock": lock,
        "prefault": prefault,
        "when_full": when_full,
        "strict": strict,
    }


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {name!r}")
    good = name.isascii() and name != "" and all(c.isalnum() or c in "._-" for c in name) and not name.startswith(".")
    if not good or len(name) > NAME_LENGTH:
        raise ValueError(
            f"a shared pool cannot be named {name!r}: use up to {NAME_LENGTH} of A-Z, a-z, 0-9, '.', '-' and '_', not "
            "beginning with '.'"
        )
    return name


def _about_names() -> str:
    try:
        folder = os.statvfs("/dev/shm")
    except OSError:
        return ". Named pools lie in /dev/shm, which is not there: make the pool without name="
    free, size = folder.f_bavail * folder.f_frsize, folder.f_blocks * folder.f_frsize
    return (
        f". Named pools lie in /dev/shm, which has {format_size(free)} of {format_size(size)} free: in a container"
        " raise it (docker run --shm-size=, an emptyDir of medium Memory in Kubernetes), elsewhere"
        " mount -o remount,size=; or make the pool without name=, which needs no /dev/shm"
    )


def _creation_error(how: int, failure: tuple[int, int, int, int], label: str, asked: dict[str, Any]) -> Exception:
    step, error, _, _ = failure
    what = f"shared pool {label!r}" if label else "a nameless shared pool"
    if error == errno_names.EEXIST:
        return FileExistsError(error, f"{what} is in use by a living process; attach() to it, or unlink() it first")
    if error == errno_names.ENOENT and how != _CREATE:
        hint = "no process has it open" if how == _BY_ADDRESS else "there is none of that name"
        return FileNotFoundError(error, f"{what} cannot be opened: {hint}")
    if error == errno_names.EBADMSG:
        return CorruptionError(f"{what} is damaged, or was made by another version of rtpool", "SH-1")
    if error == errno_names.EACCES and how == _BY_ADDRESS:
        return PermissionError(
            error,
            f"{what} is open in the process that sent it, which may not be looked at: it is not dumpable (a Python "
            "with file capabilities, or PR_SET_DUMPABLE 0). Open the pool by a name (attach), by fork, or give the "
            "capabilities another way (systemd's AmbientCapabilities=)",
        )
    if error in (errno_names.EACCES, errno_names.EPERM) and how != _CREATE:
        return PermissionError(error, f"{what} belongs to another user, or others may write to it")
    told = describe(failure, asked["size"], asked["huge_pages"], comes_out_in_decimals(asked["size"]))
    text = f"{what} was not made; {told}"
    if told.setting == "size":
        return ValueError(text)
    of_memory = told.setting in ("prefault", "reserve", "commit")
    if of_memory and label and how == _CREATE:
        text += _about_names()
    if of_memory and error in (errno_names.ENOMEM, errno_names.ENOSPC):
        return MemoryError(text)
    return OSError(error, text)
