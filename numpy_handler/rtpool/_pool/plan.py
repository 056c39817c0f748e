"""Plans: what some iterations of a program needed of a pool, to be made ready before it runs again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from .._support.sizes import ADDRESS_SPACE, comes_out_in_decimals, format_size
from .._support.table import columns
from .objects import ObjectArenas, make_room
from .stats import Stats

if TYPE_CHECKING:
    from types import TracebackType

FORMAT = "rtpool-plan"
VERSION = 2  # 1: without objects; still what is written where there are none
MOST_ENTRIES = 65536  # as the core
MOST_BYTES_OF_FILE = 16 << 20

_COUNT_LIMIT = 1 << 63


class PlanEntry(NamedTuple):
    """Blocks of one size.

    Attributes
    ----------
    size : int
        Bytes of each block as the pool grants them.
    requested : int
        The largest request that was granted this size.
    most_alive : int
        The most such blocks that were alive at once.
    allocations : int
        How many were asked for.
    zeroed : int
        Of these, how many were asked for as zeroed (``np.zeros``).
    """

    size: int
    requested: int
    most_alive: int
    allocations: int
    zeroed: int


class Plan:
    """What some iterations needed of a pool: per size the most blocks alive at once, and how many of them zeroed.

    Plans come from `Pool.learn`, from real-time sections with ``warmup=``, and from files. Two plans are equal when
    their entries are; ``first | second`` is a plan that serves either.

    Parameters
    ----------
    entries : iterable of PlanEntry, optional
        One a size.
    peak_bytes : int, optional
        The most bytes that were alive at once, over all sizes.
    objects : ObjectArenas, optional
        The most arenas that Python took at once for its own objects, where the pool serves them.

    Raises
    ------
    ValueError, TypeError
        For entries that no program can have: negative counts, more zeroed than asked for, a size twice.

    Examples
    --------
    >>> import numpy as np, rtpool
    >>> pool = rtpool.Pool()
    >>> with rtpool.handler(pool), pool.learn() as plan:
    ...     for _ in range(10):
    ...         image = np.zeros((480, 640))
    >>> [(entry.requested, entry.most_alive, entry.zeroed) for entry in plan.entries]
    [(2457600, 2, 10)]
    """

    __slots__ = ("_entries", "_objects", "_peak_bytes")

    def __init__(
        self, entries: Iterable[PlanEntry] = (), *, peak_bytes: int = 0, objects: ObjectArenas | None = None
    ) -> None:
        self._entries = _checked(entries)
        self._peak_bytes = _count(peak_bytes, "peak_bytes")
        self._objects = _checked_objects(objects)

    @property
    def entries(self) -> tuple[PlanEntry, ...]:
        """One entry a size, in the order of sizes."""
        return self._entries

    @property
    def bytes(self) -> int:
        """Bytes made ready for this plan: of every size as many blocks as were alive at once, and the arenas."""
        return self._block_bytes + (self._objects.bytes if self._objects is not None else 0)

    @property
    def _block_bytes(self) -> int:
        return sum(entry.size * entry.most_alive for entry in self._entries)

    @property
    def objects(self) -> ObjectArenas | None:
        """The arenas that Python took for its objects; `None` if it took none, or they are not the pool's."""
        return self._objects

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were alive at once, over all sizes; 0 if not known."""
        return self._peak_bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a JSON file, which is replaced as a whole or not at all."""
        target = os.fspath(path)
        partial = f"{target}.{os.getpid()}.partial"
        try:
            with open(partial, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            os.replace(partial, target)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan from a file that `save` wrote.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it holds no plan; the text says where it goes wrong. Nothing in a file is trusted.
        """
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES_OF_FILE + 1)
        try:
            if len(data) > MOST_BYTES_OF_FILE:
                raise ValueError(f"more than {format_size(MOST_BYTES_OF_FILE)}")
            return cls.from_json(data.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)!r} is no plan: {error}") from None

    def to_json(self) -> str:
        """Give the plan as JSON text."""
        import json

        sizes = [json.dumps(entry._asdict()) for entry in self._entries]
        listed = ",\n    ".join(sizes)
        objects, version = "", 1
        if self._objects is not None:
            objects, version = f'  "objects": {json.dumps(self._objects._asdict())},\n', VERSION
        return (
            f'{{\n  "format": "{FORMAT}",\n  "version": {version},\n  "peak_bytes": {self._peak_bytes},\n{objects}'
            f'  "entries": [\n    {listed}\n  ]\n}}\n'
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from JSON text; `ValueError` says what is wrong with it."""
        import json

        try:
            data = json.loads(text, object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'an object with "format": "{FORMAT}" is expected')
        version = data.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(f"version {version!r} is not one this rtpool reads (1 to {VERSION})")
        keys = {"format", "version", "peak_bytes", "entries"}
        _expect_keys(data, keys if version == 1 else {*keys, "objects"}, "the plan")
        if not isinstance(data["entries"], list):
            raise ValueError("entries must be a list")
        if len(data["entries"]) > MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES} entries")
        try:
            entries = [_entry(number, raw) for number, raw in enumerate(data["entries"])]
            objects = _objects(data["objects"]) if version > 1 else None
            return cls(entries, peak_bytes=data["peak_bytes"], objects=objects)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def __or__(self, other: Plan) -> Plan:
        if not isinstance(other, Plan):
            return NotImplemented
        merged = {entry.size: entry for entry in self._entries}
        for entry in other._entries:
            mine = merged.get(entry.size)
            merged[entry.size] = entry if mine is None else PlanEntry(*map(max, zip(mine, entry, strict=True)))
        mine_objects, its_objects = self._objects, other._objects
        objects = mine_objects | its_objects if mine_objects and its_objects else mine_objects or its_objects
        return Plan(merged.values(), peak_bytes=max(self._peak_bytes, other._peak_bytes), objects=objects)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self._entries == other._entries and self._objects == other._objects

    __hash__ = None  # type: ignore[assignment]  # a plan is filled in when its learning ends

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[PlanEntry]:
        return iter(self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries) or self._objects is not None

    def __repr__(self) -> str:
        arenas = f", {self._objects.most_alive:,} arenas of objects" if self._objects is not None else ""
        return f"<rtpool.Plan: {len(self)} sizes{arenas}, {format_size(self.bytes)}>"

    def __str__(self) -> str:
        """A table, the sizes that need most memory first."""
        return "\n".join(columns(self._rows(), gap=4))

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        from .._support import html

        head, *rows = self._rows()
        return html.table(rows, head=head, left=0)

    def _rows(self) -> list[list[str]]:
        rows = [["bytes", "most alive", "together", "asked for", "zeroed"]]
        for entry in sorted(self._entries, key=lambda one: -one.size * one.most_alive):
            together = format_size(entry.size * entry.most_alive)
            counts = [f"{entry.allocations:,}", f"{entry.zeroed:,}"]
            rows.append([f"{entry.size:,}", f"{entry.most_alive:,}", together, *counts])
        if self._objects is not None:
            size, most = self._objects
            together = format_size(self._objects.bytes)
            rows.append([f"{size:,}", f"{most:,}", together, "objects", ""])
        rows.append(["in all", "", format_size(self.bytes), "", ""])
        return rows

    def _fill(self, learned: Plan) -> None:
        self._entries, self._peak_bytes, self._objects = learned._entries, learned._peak_bytes, learned._objects


class Learning:
    """The context of `Pool.learn`; the plan it gives is filled in when it ends."""

    __slots__ = ("_begun", "_plan", "_pool", "_watch")

    def __init__(self, pool: _core.Pool) -> None:
        self._pool = pool
        self._plan = Plan()
        self._begun = False
        self._watch = -1

    def __enter__(self) -> Plan:
        if self._begun:
            raise RuntimeError("this learning is under way or over; call learn() for another one")
        if self._pool._frozen():
            raise RuntimeError(f"pool {self._pool._name()!r} is frozen and cannot learn; call unfreeze() before")
        if not self._pool._begin_learning():
            raise RuntimeError(
                f"pool {self._pool._name()!r} is learning already; to learn in several threads, give each its own pool"
            )
        self._begun = True
        self._pool._reset_peak()
        self._watch = _core.begin_object_watch()
        return self._plan

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.finish()
            if kind is None:
                prepare(self._pool, self._plan)
                make_room(self._pool, self._plan.objects, held=self.arenas_held())
        finally:
            self.forget()

    def arenas_held(self) -> int:
        """How many of the plan's arenas are in use; until `forget`. Below 0: of those before it some are no longer."""
        return _core.look_at_object_watch(self._watch)[1]

    def forget(self) -> None:
        """Watch the arenas no longer."""
        _core.end_object_watch(self._watch)
        self._watch = -1

    def finish(self) -> Plan:
        """End learning and give the plan, without making it ready."""
        most, _, size = _core.look_at_object_watch(self._watch)
        objects = ObjectArenas(size, most) if most else None
        peak = Stats._make(self._pool._stats()).peak_bytes
        entries = [PlanEntry(*raw) for raw in self._pool._end_learning()]
        self._plan._fill(Plan(entries, peak_bytes=peak, objects=objects))
        return self._plan


def prepare(pool: _core.Pool, plan: Plan) -> None:
    """Make ready in a pool, for the calling thread, what a plan says; and the code that will run, once a process.

    Arenas for objects come after it, by `make_room`: blocks take what is kept for them rather than more memory.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"prepare needs a Plan, not {type(plan).__name__}; read files with Plan.load")
    _, limit, *_ = pool._effective()
    decimal = comes_out_in_decimals(pool._options()[1])
    if plan._block_bytes > limit:
        raise MemoryError(
            f"the plan needs {format_size(plan._block_bytes, decimal)}, pool {pool._name()!r} may hold"
            f" {format_size(limit, decimal)}; raise limit="
        )
    _core.make_program_resident()  # before the blocks, which are to be the last that passed through the caches
    _core.make_object_room()
    prepared = pool._prepare(plan.entries)
    if prepared < len(plan):
        # The core makes the largest sizes ready first.
        missing = plan.entries[: len(plan) - prepared]
        worst = missing[-1]
        raise MemoryError(
            f"pool {pool._name()!r} could make ready {prepared} of the plan's {len(plan)} sizes, not"
            f" {worst.most_alive} blocks of {format_size(worst.size, decimal)}; free memory, or raise limit= of the"
            " pool or of this process or container"
        )


def _count(value: object, what: str, most: int = _COUNT_LIMIT) -> int:
    if type(value) is not int:
        raise TypeError(f"{what} must be a whole number, not {value!r}")
    if not 0 <= value < most:
        raise ValueError(f"{what} of {value} is out of range")
    return value


def _checked(entries: Iterable[PlanEntry]) -> tuple[PlanEntry, ...]:
    checked = []
    for entry in entries:
        if not isinstance(entry, PlanEntry):
            raise TypeError(f"a plan is made of PlanEntry, not of {type(entry).__name__}")
        where = f"entry for size {entry.size!r}: "
        _count(entry.size, f"{where}size", ADDRESS_SPACE)
        for field in ("requested", "most_alive", "allocations", "zeroed"):
            _count(getattr(entry, field), where + field)
        if entry.size == 0:
            raise ValueError(f"{where}a block has at least 1 byte")
        if entry.requested > entry.size:
            raise ValueError(f"{where}requested {entry.requested} is more than the size")
        if entry.zeroed > entry.allocations:
            raise ValueError(f"{where}zeroed {entry.zeroed} is more than the {entry.allocations} allocations")
        if entry.most_alive > entry.allocations:
            raise ValueError(f"{where}most_alive {entry.most_alive} is more than the {entry.allocations} allocations")
        checked.append(entry)
    checked.sort()
    for one, other in zip(checked, checked[1:], strict=False):
        if one.size == other.size:
            raise ValueError(f"size {one.size} stands in the plan twice")
    if sum(entry.size * entry.most_alive for entry in checked) >= ADDRESS_SPACE:
        raise ValueError("the plan needs more than the address space of a process has")
    return tuple(checked)


def _checked_objects(objects: object) -> ObjectArenas | None:
    if objects is None:
        return None
    if not isinstance(objects, ObjectArenas):
        raise TypeError(f"objects must be an ObjectArenas, not {type(objects).__name__}")
    _count(objects.size, "size of object arenas", ADDRESS_SPACE)
    _count(objects.most_alive, "most_alive of object arenas")
    if not objects.size or not objects.most_alive:
        raise ValueError("object arenas: size and most_alive are at least 1; leave objects out if there are none")
    if objects.bytes >= ADDRESS_SPACE:
        raise ValueError("the plan's object arenas need more than the address space of a process has")
    return objects


def _objects(raw: object) -> ObjectArenas:
    if not isinstance(raw, dict):
        raise ValueError("objects must be an object")
    _expect_keys(raw, set(ObjectArenas._fields), "objects")
    return ObjectArenas(**raw)


def _entry(number: int, raw: object) -> PlanEntry:
    if not isinstance(raw, dict):
        raise ValueError(f"entry {number} must be an object")
    _expect_keys(raw, set(PlanEntry._fields), f"entry {number}")
    return PlanEntry(**raw)


def _expect_keys(data: dict[str, Any], keys: set[str], where: str) -> None:
    if data.keys() != keys:
        missing, unknown = sorted(keys - data.keys()), sorted(data.keys() - keys)
        wrong = f"no {missing[0]}" if missing else f"an unknown {unknown[0]!r}"
        raise ValueError(f"{where} has {wrong}")


def _object_without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands in an object twice")
    return made


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of a plan")
