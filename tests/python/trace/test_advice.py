"""What `Trace.advice` says, held against running it."""

from __future__ import annotations

import ast
import linecache
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traced import PROGRAM, PYTHON_KEEPS_COLUMNS, defined, traced

import rtpool


@pytest.fixture
def pool() -> rtpool.Pool:
    return rtpool.Pool(name="traced")


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
def test_advice_saves_what_it_says(pool: rtpool.Pool, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    names = defined(PROGRAM, path)
    a, b = np.full(100_000, 2.0), np.full(100_000, 1.5)
    trace = traced(pool, lambda: names["step"](a, b))
    advice = [entry for entry in trace.advice() if entry.instead != "unknown" and entry.usage.file == str(path)]
    assert {entry.expression for entry in advice} == {"a * b + a", "np.sqrt(t - b)", "u > 0.5"}
    expected = names["step"](a, b)
    for entry in advice:
        # The advice is followed for each expression alone.
        tree = ast.parse(PROGRAM)
        replaced = ast.unparse(tree).replace(entry.expression, entry.instead, 1)
        buffer = entry.before.partition(" = ")[0]
        scope: dict[str, Any] = {}
        exec(compile(replaced, str(path), "exec"), scope)
        t, u = a * b + a, np.sqrt(a * b + a - b)
        scope[buffer] = eval(entry.before.partition(" = ")[2], {"np": np, "a": a, "b": b, "t": t, "u": u})
        linecache.cache.pop(str(path), None)
        assert scope["step"](a, b) == expected
        again = traced(pool, lambda scope=scope: scope["step"](a, b))

        def large(found: rtpool.Trace, size: int = entry.usage.largest_size) -> int:
            return sum(usage.calls - usage.scalars for usage in found.by_expression() if usage.largest_size == size)

        assert large(again) == large(trace) - 20 * len(entry.usages), entry.instead


NAMED = """
import numpy as xp
from numpy import dot, sqrt as root

def step(a, b):
    t = dot(a, b)
    u = root(t)
    v = xp.abs(
        u - 1.0)
    return float(v.sum())
"""


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
def test_advice_uses_the_names_of_the_file(pool: rtpool.Pool, tmp_path: Path) -> None:
    path = tmp_path / "named.py"
    names = defined(NAMED, path)
    a = np.full((200, 200), 2.0)
    trace = traced(pool, lambda: names["step"](a, a))
    advice = {entry.expression: entry for entry in trace.advice() if entry.usage.file == str(path)}
    written = {expression: re.sub(r"buffer\d", "buffer", entry.instead) for expression, entry in advice.items()}
    assert written["dot(a, b)"] == "dot(a, b, out=buffer)"
    assert written["root(t)"] == "root(t, out=buffer)"
    assert written["xp.abs(u - 1.0)"] == "xp.abs(xp.subtract(u, 1.0, out=buffer), out=buffer)"
    assert any(usage.source == "xp.abs( ..." for usage in trace.by_expression())
    scope = {"buffer": np.empty_like(a), "a": a, "b": a, **names}
    assert (eval(written["dot(a, b)"], scope) == a @ a).all()


BY_NAME_ALONE = """
from numpy import cosh

def step(a, b):
    return cosh(a * b + a).sum()
"""


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
def test_advice_imports_what_the_file_does_not(pool: rtpool.Pool, tmp_path: Path) -> None:
    path = tmp_path / "by_name.py"
    names = defined(BY_NAME_ALONE, path)
    a, b = np.full(100_000, 2.0), np.full(100_000, 1.5)
    trace = traced(pool, lambda: names["step"](a, b))
    advice = {entry.expression: entry for entry in trace.advice() if entry.usage.file == str(path)}
    found = advice["cosh(a * b + a)"]
    assert found.before.startswith("import numpy as np; buffer") and found.instead.startswith("cosh(np.add(")
    scope = {"a": a, "b": b, **names}
    exec(found.before, scope)
    assert (eval(found.instead, scope) == np.cosh(a * b + a)).all()


IN_PARTS = """
import numpy as np

def step(a, b):
    root = np.sqrt(a)
    return (a[1:] * 2.0 - b[:-1] + 1.0).sum() + root.sum()
"""


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
def test_advice_that_saves_most_comes_first(pool: rtpool.Pool, tmp_path: Path) -> None:
    """Whatever each of the parts of an expression is: these are smaller than the other's one array."""
    path = tmp_path / "in_parts.py"
    names = defined(IN_PARTS, path)
    a = np.full(5000, 2.0)
    trace = traced(pool, lambda: names["step"](a, a))
    first, second = (entry for entry in trace.advice() if entry.usage.file == str(path))
    assert first.expression == "a[1:] * 2.0 - b[:-1] + 1.0" and len(first.usages) == 3
    assert second.expression == "np.sqrt(a)" and second.usage.largest_size > first.usage.largest_size
    assert [re.findall(r"buffer\d+", entry.before) for entry in (first, second)] == [["buffer1"], ["buffer2"]]


CHAINS = """
import numpy as np

def step(x, y, z, w):
    a = x * 2 + y * 3 - z
    b = np.abs(x * y - z) / (w * 2.0 + 1.0)
    c = (x * 2 + y * 3) * (z - w) + x * w
    d = np.matmul((x * 2.0).reshape(100, -1).T, z[:100] * 2.0)
    m = a - b > c * 0.5
    return [float(array.sum()) for array in (a, b, c, d, m)]
"""


def followed(text: str, path: Path, advice: list[Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The program with all of the advice, and its buffers."""
    tree = ast.parse(text)
    statements = {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.stmt)}
    scope = dict(inputs)

    class Follow(ast.NodeTransformer):
        left = 1

        def visit(self, node: ast.AST) -> Any:
            if isinstance(node, ast.expr) and self.left and ast.unparse(node) == entry.expression:
                self.left = 0
                return ast.parse(entry.instead, mode="eval").body
            return self.generic_visit(node)

    # The longest first: in that stands what is a part of it.
    for entry in sorted(advice, key=lambda entry: -len(entry.expression)):
        follow = Follow()
        follow.visit(statements[entry.usage.line])
        assert not follow.left, entry
        exec(entry.before, scope)
    exec(compile(ast.unparse(tree), str(path), "exec"), scope)
    linecache.cache.pop(str(path), None)
    return scope


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
@pytest.mark.parametrize(
    ("count", "whole"), [(5000, False), (100_000, False), (100_000, True)], ids=["small", "large", "mixed"]
)
def test_advice_takes_as_few_buffers_as_one_would_by_hand(
    pool: rtpool.Pool, tmp_path: Path, count: int, whole: bool
) -> None:
    path = tmp_path / "chains.py"
    names = defined(CHAINS, path)
    x = np.arange(1, count + 1) if whole else np.linspace(1, 2, count)
    y, z, w = x * 0.5, x - 0.25, np.sqrt(x)
    trace = traced(pool, lambda: names["step"](x, y, z, w))
    advice = [entry for entry in trace.advice() if entry.instead != "unknown" and entry.usage.file == str(path)]
    buffers = {entry.expression: entry.before.count(" = ") for entry in advice}
    assert buffers == {
        "x * 2 + y * 3 - z": 2, "np.abs(x * y - z) / (w * 2.0 + 1.0)": 2, "(x * 2 + y * 3) * (z - w) + x * w": 2,
        "np.matmul((x * 2.0).reshape(100, -1).T, z[:100] * 2.0)": 2, "x * 2.0": 1, "a - b > c * 0.5": 3,
    }  # fmt: skip
    assert len({name for entry in advice for name in re.findall(r"buffer\d+", entry.instead)}) == sum(buffers.values())
    scope = {"np": np, "x": x, "y": y, "z": z, "w": w, "a": x * 2 + y * 3 - z, "b": y, "c": z}
    better = followed(CHAINS, path, advice, scope)
    assert better["step"](x, y, z, w) == names["step"](x, y, z, w)
    again = traced(pool, lambda: better["step"](x, y, z, w))
    assert not [usage for usage in again.by_expression() if usage.file == str(path) and usage.largest_size > 64]


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
@pytest.mark.parametrize("count", [3000, 100_000], ids=["small", "large"])
def test_what_advice_says_computes_the_same_whatever_the_types(pool: rtpool.Pool, tmp_path: Path, count: int) -> None:
    chance = random.Random(count)

    def expression(depth: int) -> str:
        if depth == 0:
            return chance.choice(["f", "g", "i", "h", "u", "c", "2", "3.5"])
        way, left, right = chance.random(), expression(depth - 1), expression(chance.randrange(depth))
        if way < 0.12:
            return f"np.sqrt(np.abs({left}))"
        if way < 0.2:
            return f"np.maximum({left}, {right})" if "c" not in left + right else f"np.add({left}, {right})"
        if way < 0.25:
            return f"-({left} + 1)"
        if way < 0.3:
            return f"(np.abs({left}) > 1) * {right}"
        return f"({left} {chance.choice('++--**/')} {right})"

    lines = [f"    yield {expression(4)}" for _ in range(60)]
    text = "\n".join(["import numpy as np", "", "def step(f, g, i, h, u, c):", *lines, ""])
    path = tmp_path / "types.py"
    values = np.random.default_rng(count).uniform(1, 100, count)
    inputs = {
        "f": values, "g": values.astype(np.float32), "i": values.astype(np.int64), "h": values.astype(np.int32),
        "u": values.astype(np.uint8), "c": values.astype(np.complex64),
    }  # fmt: skip
    with np.errstate(all="ignore"):
        names = defined(text, path)
        trace = traced(pool, lambda: [None for _ in names["step"](**inputs)])
        advice = [entry for entry in trace.advice() if entry.instead != "unknown" and entry.usage.file == str(path)]
        assert len(advice) > 40
        better = followed(text, path, advice, {"np": np, **inputs})
        for expected, found in zip(names["step"](**inputs), better["step"](**inputs), strict=True):
            assert np.asarray(expected).dtype == np.asarray(found).dtype
            np.testing.assert_array_equal(expected, found)


def test_advice_is_unknown_where_it_cannot_tell(pool: rtpool.Pool) -> None:
    sizes = iter(range(1000, 1000000, 700))
    kept: list[np.ndarray] = []

    def work() -> None:
        n = next(sizes)
        np.empty(n)
        kept.append(np.ones(5000) * 3)

    trace = traced(pool, work)
    known = [entry for entry in trace.advice() if entry.usage.file == __file__]
    assert known and all(entry.instead == "unknown" and entry.reason for entry in known)
    if PYTHON_KEEPS_COLUMNS:
        assert any("alive at once" in entry.reason for entry in known if "* 3" in entry.usage.source)


@pytest.mark.skipif(not PYTHON_KEEPS_COLUMNS, reason="Python 3.10 keeps no columns")
def test_advice_names_what_keeps_the_last_array(pool: rtpool.Pool) -> None:
    base = np.ones(50_000)
    with rtpool.handler(pool), rtpool.record(pool=pool) as recording:
        for number in recording.iterations(range(10)):
            image = base * number  # one operation: whether NumPy keeps what is between two is its own affair
            assert image[0] == number
    found = [entry.reason for entry in recording.trace.advice() if "number" in entry.expression]
    assert found == ["2 of its arrays are alive at once: image has the last one until the next is there"]
