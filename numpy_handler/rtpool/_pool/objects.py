"""Python's own objects: whether their arenas come from a pool, and why not."""

from typing import NamedTuple

from .. import _core
from .._support.sizes import format_size

# What keeps the allocator of free-threaded Python from giving memory back, set before the process begins.
KEEP_VARIABLE = "MIMALLOC_PURGE_DELAY"
KEEP_VALUE = "-1"

_WATCHED = "a sanitizer or Valgrind watches this process, and is to see where Python itself puts objects"


def refusal() -> str | None:
    """Why Python asks nobody for arenas in this process; `None`: it does."""
    why = _core.object_arenas_refusal()
    if why is None:
        return None
    if why == "free-threaded":
        return _explain_free_threaded()
    return _WATCHED if why == "watched" else f"Python's allocator is {why!r} (PYTHONMALLOC), which has no arenas"


def kept_by_python() -> bool:
    """Whether this is a free-threaded Python that was started so that its allocator keeps its memory by itself."""
    if _core.object_arenas_refusal() != "free-threaded":
        return False
    try:
        with open("/proc/self/environ", "rb") as file:  # as it was when the allocator read it
            begun_with = file.read().split(b"\0")
    except OSError:
        return False
    return f"{KEEP_VARIABLE}={KEEP_VALUE}".encode() in begun_with


def _explain_free_threaded() -> str:
    if kept_by_python():
        return f"free-threaded Python keeps the memory of its objects by itself ({KEEP_VARIABLE}={KEEP_VALUE})"
    # One line of a report: at most 140 characters with what stands before it.
    start = f"start it with {KEEP_VARIABLE}={KEEP_VALUE}"
    return f"free-threaded: room in sections for objects up to 128 KiB; for all {start}"


class ObjectArenas(NamedTuple):
    """What a plan says of the arenas that Python keeps its objects in.

    Attributes
    ----------
    size : int
        Bytes of each.
    most_alive : int
        The most of them that Python took at once beyond those it had.
    """

    size: int
    most_alive: int

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return self.size * self.most_alive

    def __or__(self, other: object) -> "ObjectArenas":
        if not isinstance(other, ObjectArenas):
            return NotImplemented
        size = max(self.size, other.size)
        return ObjectArenas(size, -(-max(self.bytes, other.bytes) // size))


class Objects(NamedTuple):
    """How a section kept Python's objects.

    Attributes
    ----------
    served : bool
        Whether the pool served the arenas.
    ready, size : int
        Arenas that lay ready before the first measured iteration, and the bytes of each.
    missing : int
        Arenas of the plan that the pool could not hold.
    misses : int
        Arenas that Python asked for beyond these; its own allocator served them, once each.
    reason : str
        Why the pool did not serve.
    """

    served: bool = False
    ready: int = 0
    size: int = 0
    missing: int = 0
    misses: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if not self.served:
            return f"not served: {self.reason}"
        lacking = f", {self.missing:,} of the plan missing" if self.missing else ""
        ready = (
            f"{self.ready:,} arena{'s' * (self.ready != 1)} ready ({format_size(self.ready * self.size)})"
            if self.ready
            else "no arena ready"
        )
        return f"{ready}{lacking}, {self.misses:,} misses"


def make_room(pool: _core.Pool, wanted: ObjectArenas | None, *, held: int = 0, spare: int = 0) -> tuple[int, int, int]:
    """Make arenas ready: how many there are of the wanted and spare ones, bytes of each, how many are missing.

    `held` of the wanted ones Python has already; below 0: so many of those that it had before are gone.
    """
    if _core.object_arenas_refusal() is not None:
        return 0, 0, 0
    size = _core.object_arena_bytes() or (wanted.size if wanted is not None else 0)
    if not size:
        return 0, 0, 0  # Python has asked for none yet: nobody knows
    needed = max(-(-wanted.bytes // size) - held, 0) if wanted is not None else 0
    ready = pool._prepare_object_arenas(size, needed + spare)
    return ready, size, max(needed - ready, 0)
