"""Fuzz the reader of plan files: whatever a file holds, `Plan.load` gives a plan or raises `ValueError`.

    python tests/fuzz/plan_fuzz.py --seconds 30 [--corpus DIR] [--counts FILE]

With atheris (coverage-guided, ``pip install atheris``) inputs are mutated bytes and mutated documents; without it,
hypothesis makes the same documents at random. A plan that is read must write itself and read back as the same plan,
merge with itself to itself, print, and count its bytes. Runs against the installed rtpool.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FIELDS = ("size", "requested", "most_alive", "allocations", "zeroed")


class Finding(Exception):
    """A promise of `Plan` that does not hold for an input."""


class Target:
    """Runs inputs through the reader and counts what came of them."""

    def __init__(self, plan_type: Any) -> None:
        self.plan_type = plan_type
        self.inputs = self.plans = 0
        folder = tempfile.mkdtemp(prefix="rtpool-plan-fuzz-")
        self.path = os.path.join(folder, "plan.json")

    def run(self, data: bytes) -> None:
        self.inputs += 1
        with open(self.path, "wb") as file:
            file.write(data)
        try:
            plan = self.plan_type.load(self.path)
        except ValueError as error:
            if not str(error):
                raise Finding("an error without a text") from error
            return
        self.plans += 1
        text = plan.to_json()
        if self.plan_type.from_json(text) != plan or self.plan_type.from_json(text).peak_bytes != plan.peak_bytes:
            raise Finding("a plan that does not read back as itself")
        if (plan | plan) != plan or len(list(plan)) != len(plan) or plan.bytes < 0:
            raise Finding("a plan that does not agree with itself")
        str(plan)
        repr(plan)
        plan.save(self.path)
        if self.plan_type.load(self.path) != plan:
            raise Finding("a plan that does not survive its file")


def document(rng: random.Random) -> bytes:
    """Make a plan file, right but for some damage."""
    sizes = sorted(rng.sample(range(1, 1 << rng.choice((6, 20, 40))), rng.randrange(6)))
    entries: list[Any] = []
    for size in sizes:
        allocations = rng.randrange(1, 1000)
        values = (size, rng.randint(1, size), rng.randint(0, allocations), allocations, rng.randint(0, allocations))
        entries.append(dict(zip(FIELDS, values, strict=True)))
    plan: dict[str, Any] = {"format": "rtpool-plan", "version": 1, "peak_bytes": rng.randrange(1 << 30)}
    plan["entries"] = entries
    odd: list[Any] = [None, True, -1, 0, 1 << 63, 1 << 64, 10**400, 1.5, 1e308, "", "x", [], {}, [[]], "\ud800", "1"]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        target: Any = rng.choice([plan, *entries])
        if not target or rng.random() < 0.1:
            target[str(rng.choice(odd))] = rng.choice(odd)
        elif rng.random() < 0.2:
            target.pop(rng.choice(list(target)))
        else:
            target[rng.choice(list(target))] = rng.choice(odd)
    text = json.dumps(plan)
    for old, new in (("1", "NaN"), ("}", ', "size": 1}'), (":", "::"), ("[", "[" * 2000), ("{", "\ufeff{")):
        if rng.random() < 0.03:
            text = text.replace(old, new, 1)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    while data and rng.random() < 0.2:
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(4)] = bytes(rng.randrange(256) for _ in range(rng.randrange(4)))
    return bytes(data)


def with_atheris(arguments: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["rtpool._pool.plan", "rtpool._support.sizes"]):
        from rtpool._pool.plan import Plan
    target = Target(Plan)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.25:
            return document(rng)[:most]
        return bytes(atheris.Mutate(data, most))

    options = [
        sys.argv[0],
        f"-max_total_time={arguments.seconds}",
        "-max_len=65536",
        "-len_control=0",
        "-timeout=20",
        "-print_final_stats=1",
        f"-artifact_prefix={arguments.artifacts}",
    ]
    if arguments.corpus:
        options.append(arguments.corpus)

    def once(data: bytes) -> None:
        # The fuzzer ends the process without a word to Python: what was counted is written now and then.
        target.run(data)
        if target.inputs == 100:
            report(target, arguments.counts)

    atheris.Setup(options, once, custom_mutator=mutate)
    atheris.Fuzz()


def with_hypothesis(arguments: argparse.Namespace) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from rtpool._pool.plan import Plan

    target = Target(Plan)
    for path in sorted(Path(arguments.corpus).glob("*")) if arguments.corpus else ():
        target.run(path.read_bytes())
    documents = st.integers(0, (1 << 64) - 1).map(lambda seed: document(random.Random(seed)))

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(documents, documents, documents, st.binary(max_size=400)))
    def once(data: bytes) -> None:
        target.run(data)

    ends = time.monotonic() + arguments.seconds
    while time.monotonic() < ends:
        once()
    print(f"{target.inputs} inputs, {target.plans} of them plans")
    report(target, arguments.counts)


def report(target: Target, path: str | None) -> None:
    """Add what was counted since the last time to a file."""
    line = f"inputs={target.inputs} operations={target.plans} faults=0 misuses={target.inputs - target.plans}"
    target.inputs = target.plans = 0
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--corpus", help="folder of inputs to begin with, and to keep new ones in (atheris)")
    parser.add_argument("--counts", help="file to append what was counted to")
    parser.add_argument("--artifacts", default="./", help="where atheris puts an input that fails")
    parser.add_argument("--engine", choices=("any", "atheris", "hypothesis"), default="any")
    arguments = parser.parse_args()
    if arguments.engine != "hypothesis":
        try:
            import atheris  # noqa: F401
        except ImportError:
            if arguments.engine == "atheris":
                raise
        else:
            with_atheris(arguments)
            return 0
    with_hypothesis(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
