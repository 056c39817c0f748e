"""The pool that is used where none is named, with its options from the environment."""

import os
from typing import Any

from .. import _core
from .._support.durations import parse_duration
from .._support.options import HUGE_PAGES, WHEN_FULL
from .._support.sizes import parse_size
from .pool import Pool, from_environment

_SPARE_PART = 4
_MOST_ZEROED_PART = 16

_IDLE = "10 s"

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")

_SIZES = {"RTPOOL_SIZE": "size", "RTPOOL_LIMIT": "limit"}
_FLAGS = {
    "RTPOOL_PREFAULT": "prefault",
    "RTPOOL_LOCK": "lock",
    "RTPOOL_ZERO_ON_FREE": "zero_on_free",
    "RTPOOL_STRICT": "strict",
    "RTPOOL_DEBUG": "debug",
}


def default_pool() -> Pool:
    """Give the pool of this process that is used where none is named; made at the first call.

    Its options come from the environment, each as the argument of `Pool` with the same name: ``RTPOOL_SIZE``,
    ``RTPOOL_LIMIT``, ``RTPOOL_NAME`` (default ``"default"``), ``RTPOOL_HUGE_PAGES`` (``auto``, ``2MiB``, ``1GiB``,
    ``off``), ``RTPOOL_WHEN_FULL`` (default ``fallback``: programs that know nothing of pools must not see one run
    full), and ``RTPOOL_PREFAULT``, ``RTPOOL_LOCK``, ``RTPOOL_ZERO_ON_FREE``, ``RTPOOL_STRICT``, ``RTPOOL_DEBUG``
    (``1`` or ``0``); and ``RTPOOL_IDLE`` (a span of time such as ``10 s``, which is the default, or ``none``). They are
    read once.

    Programs that know nothing of pools must not need more memory than without one, so with ``fallback`` NumPy's own
    allocator serves, counted as well: what would take the machine's (or the memory cgroup's) available memory below a
    quarter of all; and requests for zeros above a sixteenth of all that would need new memory, as of large arrays made
    by `numpy.zeros` often only a part is ever touched.

    Raises
    ------
    ValueError
        For a value that is none; the text names the variable.
    OSError, MemoryError
        As `Pool` does.

    Examples
    --------
    >>> rtpool.default_pool().name
    'default'
    """
    pool = _core.default_pool()
    assert isinstance(pool, Pool)
    return pool


def options_from_environment(environment: dict[str, str] | os._Environ[str], memory: int) -> dict[str, Any]:
    """The arguments for the default pool on a machine with that much memory, 0 if unknown."""
    options: dict[str, Any] = {"size": 0, "name": environment.get("RTPOOL_NAME") or "default", "when_full": "fallback"}
    for variable, option in _SIZES.items():
        if text := environment.get(variable, ""):
            options[option] = _read_size(variable, text)
    for variable, option in _FLAGS.items():
        if text := environment.get(variable, ""):
            options[option] = _read_flag(variable, text)
    options["idle"] = _read_idle(environment.get("RTPOOL_IDLE", "") or _IDLE)
    if text := environment.get("RTPOOL_HUGE_PAGES", ""):
        options["huge_pages"] = _read_huge_pages(text)
    if text := environment.get("RTPOOL_WHEN_FULL", ""):
        if text.lower() not in WHEN_FULL:
            raise ValueError(f"RTPOOL_WHEN_FULL={text!r}: write one of {', '.join(WHEN_FULL)}")
        options["when_full"] = text.lower()
    # Without a limit of its own, a pool that does not grow ends at its size; this one may use all memory there is.
    options.setdefault("limit", memory or None)
    return options


def _read_size(variable: str, text: str) -> int:
    try:
        return parse_size(text, variable)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r}: {error}") from None


def _read_idle(text: str) -> float | None:
    if text.strip().lower() in ("none", "never", *_NO):
        return None
    try:
        return parse_duration(text, "RTPOOL_IDLE") / 1e9
    except ValueError as error:
        raise ValueError(f"RTPOOL_IDLE={text!r}: {error}; or none") from None


def _read_flag(variable: str, text: str) -> bool:
    lower = text.lower()
    if lower not in _YES + _NO:
        raise ValueError(f"{variable}={text!r}: write 1 or 0")
    return lower in _YES


def _read_huge_pages(text: str) -> str | bool:
    if text.lower() in _NO:
        return False
    for choice in HUGE_PAGES:
        if isinstance(choice, str) and choice.lower() == text.lower().replace(" ", ""):
            return choice
    raise ValueError(f"RTPOOL_HUGE_PAGES={text!r}: write auto, 2MiB, 1GiB or off")


def _make() -> Pool:
    memory = _core.physical_memory()
    options = options_from_environment(os.environ, memory)
    # As they are written, so that errors give them back in their units.
    options |= {option: text for variable, option in _SIZES.items() if (text := os.environ.get(variable, ""))}
    try:
        pool = Pool(options.pop("size"), **options)
    except ValueError as error:
        raise ValueError(f"the RTPOOL_ variables of the environment do not fit together: {error}") from None
    from_environment.add(pool._key())
    if options["when_full"] == "fallback" and memory:
        pool._restrain(memory // _SPARE_PART, memory // _MOST_ZEROED_PART)
    return pool


_core._set_default_pool_maker(_make)
# A parent that only waits for its children, and a child that only waits for work, use no pool that would begin again.
os.register_at_fork(after_in_parent=_core.give_back_again, after_in_child=_core.give_back_again)
