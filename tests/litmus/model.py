"""The 64-bit Arm memory model, applied to small programs: every execution it allows is made and looked at.

This is the axiomatic model of the architecture (other-multi-copy atomic, as in the Arm Architecture Reference
Manual, B2.3) for aligned accesses of one size: loads and stores, acquire (LDAR), weaker acquire (LDAPR), release
(STLR), atomic read-modify-writes, the barriers DMB ISH, ISHLD and ISHST, and dependencies of data and addresses.
Linux's membarrier is a full barrier of its caller and a full barrier at some place of every other thread; all places
are tried.

A thread is a generator: it yields what it does and is sent what it read.

    def writer():
        yield W("data", 1)
        yield W("flag", 1, release=True)

Python's own flow stands for branches. A thread that waits for a value reads once, and ends with `raise Waits` for
any other: what it does while it waits changes nothing.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any


class Waits(Exception):
    """The thread would read again: this execution is another one."""


@dataclass(frozen=True)
class Event:
    kind: str  # R, W, F (barrier), M (membarrier), B (where another's membarrier falls)
    place: str = ""
    value: int = 0
    acquire: bool = False
    weak_acquire: bool = False
    release: bool = False
    barrier: str = ""  # full, load, store
    rmw: Callable[[int], int] | None = None
    uses: int = -1  # its address, or a store's value, depends on what the thread's event of this number read
    pair: int = -1  # of the store of a read-modify-write: the number of its load

    @property
    def orders_later(self) -> bool:
        return self.acquire or self.weak_acquire


def R(place: str, *, acquire: bool = False, weak_acquire: bool = False, uses: int = -1) -> Event:
    return Event("R", place, acquire=acquire, weak_acquire=weak_acquire, uses=uses)


def W(place: str, value: int, *, release: bool = False) -> Event:
    return Event("W", place, value, release=release)


def RMW(place: str, change: Callable[[int], int], *, acquire: bool = False, release: bool = False) -> Event:
    return Event("R", place, acquire=acquire, release=release, rmw=change)


def fence(barrier: str) -> Event:
    return Event("F", barrier=barrier)


def membarrier() -> Event:
    return Event("M", barrier="full")


Program = Callable[[], Generator[Event, int, Any]]


@dataclass
class Path:
    """One way through a thread: its events, and what it answered."""

    events: list[Event]
    answer: Any


def paths(program: Program, values: dict[str, set[int]], waiting: bool = False) -> Iterator[Path]:
    """Every way through a thread if its loads read any of `values`; with `waiting` also those that end in a wait."""

    def follow(reads: tuple[int, ...]) -> Iterator[Path]:
        thread = program()
        events: list[Event] = []
        used = 0
        send: int | None = None
        try:
            while True:
                event = next(thread) if send is None else thread.send(send)
                send = 0
                if event.kind != "R":
                    events.append(event)
                    continue
                if used == len(reads):
                    for value in sorted(values[event.place]):
                        yield from follow((*reads, value))
                    return
                send = reads[used]
                used += 1
                events.append(replace(event, value=send, release=False, rmw=None))
                if event.rmw is not None:
                    changed = event.rmw(send)
                    events.append(Event("W", event.place, changed, release=event.release, pair=len(events) - 1))
        except StopIteration as end:
            yield Path(events, end.value)
        except Waits:
            if waiting:
                yield Path(events, None)

    return follow(())


def possible_values(programs: list[Program], initial: dict[str, int]) -> dict[str, set[int]]:
    """What can be read at each place: what threads write, having read what others wrote.

    A value goes through each thread's stores at most once, so that a few rounds find all there are; a counter would
    otherwise have no end.
    """
    values: dict[str, set[int]] = defaultdict(lambda: {0})
    values.update({place: {value} for place, value in initial.items()})
    for _ in range(1 + len(programs)):
        for program in programs:
            for path in list(paths(program, values, waiting=True)):  # what it waits for may follow from what it wrote
                for event in path.events:
                    if event.kind == "W":
                        values[event.place] = values[event.place] | {event.value}
    return values


def feasible(chosen: tuple[Path, ...], start: dict[str, int]) -> bool:
    """Whether every load can have its value from a store of these paths, or from the beginning."""
    written = {(event.place, event.value) for path in chosen for event in path.events if event.kind == "W"}
    return all(
        (event.place, event.value) in written or start.get(event.place, 0) == event.value
        for path in chosen
        for event in path.events
        if event.kind == "R"
    )


def ordered(events: list[Event]) -> Iterator[tuple[int, int]]:
    """Pairs of one thread's events that other threads see in this order (dob, bob and the rmw part of aob)."""
    for i, first in enumerate(events):
        for j in range(i + 1, len(events)):
            second = events[j]
            between = events[i + 1 : j]
            full = "full" in (first.barrier, second.barrier) or any(e.barrier == "full" for e in between)
            load = first.kind == "R" and any(e.barrier == "load" for e in between)
            store = first.kind == second.kind == "W" and any(e.barrier == "store" for e in between)
            if (
                full
                or load
                or store
                or first.acquire
                or first.weak_acquire
                or (second.kind == "W" and second.release)
                or (first.release and second.acquire)
                or second.pair == i
                or second.uses == i
            ):
                yield i, j


def acyclic(count: int, edges: set[tuple[int, int]]) -> bool:
    after: list[list[int]] = [[] for _ in range(count)]
    degree = [0] * count
    for a, b in edges:
        after[a].append(b)
        degree[b] += 1
    ready = [node for node in range(count) if degree[node] == 0]
    seen = 0
    while ready:
        node = ready.pop()
        seen += 1
        for other in after[node]:
            degree[other] -= 1
            if degree[other] == 0:
                ready.append(other)
    return seen == count


@dataclass(frozen=True)
class Outcome:
    answers: tuple[Any, ...]
    memory: tuple[tuple[str, int], ...]

    def __getitem__(self, place: str) -> int:
        return dict(self.memory)[place]


def outcomes(programs: list[Program], initial: dict[str, int] | None = None) -> set[Outcome]:
    """What the threads' answers and the memory may be in the end."""
    start = dict(initial or {})
    values = possible_values(programs, start)
    found: set[Outcome] = set()
    for chosen in itertools.product(*(list(paths(program, values)) for program in programs)):
        if not feasible(chosen, start):
            continue
        for threads in with_barriers([path.events for path in chosen]):
            for memory in executions(threads, start):
                found.add(Outcome(tuple(path.answer for path in chosen), memory))
    return found


def with_barriers(threads: list[list[Event]]) -> Iterator[list[list[Event]]]:
    """The same threads with a place for each membarrier in every other thread."""
    callers = [(t, i) for t, events in enumerate(threads) for i, event in enumerate(events) if event.kind == "M"]
    if not callers:
        yield threads
        return
    assert len(callers) == 1, "one membarrier a program"
    caller = callers[0][0]
    others = [t for t in range(len(threads)) if t != caller]
    for places in itertools.product(*(range(len(threads[t]) + 1) for t in others)):
        changed = list(threads)
        for t, place in zip(others, places, strict=True):
            changed[t] = insert(threads[t], place)
        yield changed


def insert(events: list[Event], place: int) -> list[Event]:
    def moved(number: int) -> int:
        return number + 1 if number >= place else number

    shifted = [replace(event, uses=moved(event.uses), pair=moved(event.pair)) for event in events]
    return [*shifted[:place], Event("B", barrier="full"), *shifted[place:]]


def executions(threads: list[list[Event]], start: dict[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """The last values of memory in every execution that the model allows."""
    events: list[Event] = []
    owner: list[int] = []
    base: list[int] = []
    places = sorted({event.place for thread in threads for event in thread if event.place} | set(start))
    for place in places:  # what memory held before
        events.append(Event("W", place, start.get(place, 0)))
        owner.append(-1)
    for t, thread in enumerate(threads):
        base.append(len(events))
        events += thread
        owner += [t] * len(thread)
    program: set[tuple[int, int]] = set()
    local: set[tuple[int, int]] = set()
    for t, thread in enumerate(threads):
        program |= {(base[t] + i, base[t] + j) for i, j in ordered(thread)}
        local |= {
            (base[t] + i, base[t] + j)
            for i in range(len(thread))
            for j in range(i + 1, len(thread))
            if thread[i].place and thread[i].place == thread[j].place
        }
    for call, event in enumerate(events):
        if event.kind != "M":
            continue
        for fell, other in enumerate(events):
            if other.kind == "B":
                # Before the one is before after the other, both ways round.
                t, u = owner[call], owner[fell]
                before_call = range(base[t], call)
                after_call = range(call + 1, base[t] + len(threads[t]))
                program |= {(a, b) for a in range(base[u], fell) for b in after_call}
                program |= {(a, b) for a in before_call for b in range(fell + 1, base[u] + len(threads[u]))}
    reads = [i for i, event in enumerate(events) if event.kind == "R"]
    stores = [number for number, event in enumerate(events) if event.kind == "W"]

    def can_give(store: int, load: int) -> bool:
        same = (events[store].place, events[store].value) == (events[load].place, events[load].value)
        return same and not (owner[store] == owner[load] and store > load)

    sources = [[store for store in stores if can_give(store, load)] for load in reads]
    writes = {place: [s for s in stores if events[s].place == place and owner[s] >= 0] for place in places}
    first = {place: number for number, place in enumerate(places)}
    for order in itertools.product(*(list(itertools.permutations(writes[place])) for place in places)):
        coherence = {place: [first[place], *chain] for place, chain in zip(places, order, strict=True)}
        co = {(c[i], c[j]) for c in coherence.values() for i in range(len(c)) for j in range(i + 1, len(c))}
        if not acyclic(len(events), local | co):
            continue
        rank = {w: n for chain in coherence.values() for n, w in enumerate(chain)}
        for source in itertools.product(*sources):
            rf = set(zip(source, reads, strict=True))
            fr = {(r, w) for (s, r) in rf for w in coherence[events[r].place] if rank[w] > rank[s]}
            given = {load: store for store, load in rf}
            pairs = [(base[owner[s]] + events[s].pair, s) for s in stores if events[s].pair >= 0]
            if any(rank[given[load]] + 1 != rank[store] for load, store in pairs):
                continue  # a read-modify-write is one: nothing comes between
            if not acyclic(len(events), local | co | rf | fr):
                continue
            external = {(a, b) for a, b in co | rf | fr if owner[a] != owner[b]}
            # What an acquire reads from its thread's own atomic store is ordered after that (aob).
            inside = {(a, b) for a, b in rf if owner[a] == owner[b]}
            inside = {(a, b) for a, b in inside if events[a].pair >= 0 and events[b].orders_later}
            if acyclic(len(events), program | external | inside):
                yield tuple((place, events[coherence[place][-1]].value) for place in places)
