"""Which temporaries ``out=`` would save: expressions whose memory could be buffers, and the line to write.

What the trace can tell: whether an expression's arrays always have the same size, and whether each is gone before the
next is made. What it cannot tell (types, shapes) it takes from the source where that is clear, and else says
``"unknown"``.

Operations within each other are one piece of advice, with as few buffers as somebody who writes it by hand would take:
an operation goes where its operand is, and what an operation is done with the next one takes. NumPy itself lets an
operation write into an operand that is a large temporary: ``a * b + c`` makes one array, and the sum has no allocation
of its own.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from .figures import Usage
from .rewrite import Source, source_of

UNKNOWN = "unknown"

_Key = tuple[str, int, int | None, int | None]


class Advice(NamedTuple):
    """What to write for an expression.

    Attributes
    ----------
    usage : Usage
        Where the memory is asked for, and how much.
    expression : str
        What to replace: the expression, with those around it that can be computed in the same memory.
    before : str
        A line to run once, before the loop: it makes the buffers. Empty if unknown.
    instead : str
        What to write for the expression: it fills the buffers. ``"unknown"`` where the trace or the source do not say.
    reason : str
        Why, or why it is unknown.
    also : tuple of Usage
        Further expressions, parts of this one, whose memory is saved with it.
    """

    usage: Usage
    expression: str
    before: str
    instead: str
    reason: str
    also: tuple[Usage, ...] = ()

    @property
    def usages(self) -> tuple[Usage, ...]:
        """All whose memory is saved."""
        return (self.usage, *self.also)

    def __str__(self) -> str:
        if self.instead == UNKNOWN:
            return f"{self.usage}: {self.expression}: unknown: {self.reason}"
        return (
            f"{self.usage}: {self.expression}\n    before the loop  {self.before}\n    in it            {self.instead}"
        )


def advise(expressions: list[Usage]) -> list[Advice]:
    """Advice for every expression that makes arrays again and again; what most bytes are saved by first."""
    # Expressions with arrays of their own; one that only makes an array of a number writes into its operand.
    own = {_key(usage): usage for usage in expressions if usage.calls > usage.scalars and usage.file}
    found: list[tuple[int, Usage, _Writer | str]] = []
    told: set[_Key] = set()
    for usage in own.values():
        if _made(usage) < 2 or _key(usage) in told:
            continue
        writer = _unsteady(usage) or _writer(usage, own)
        parts = [usage] if isinstance(writer, str) else writer.usages
        told |= {_key(part) for part in parts}
        found.append((sum(part.bytes for part in parts), usage, writer))
    advice = []
    buffers = 0
    for _, usage, writer in sorted(found, key=lambda entry: -entry[0]):
        if isinstance(writer, str):
            advice.append(Advice(usage, usage.source, "", UNKNOWN, writer))
        else:
            advice.append(writer.advice(buffers))
            buffers += len(writer.buffers)
    return advice


def _key(usage: Usage) -> _Key:
    return usage.file, usage.line, usage.column, usage.end_column


def _made(usage: Usage) -> int:
    return usage.calls - usage.scalars


def _unsteady(usage: Usage) -> str:
    """Why the arrays of an expression cannot take turns in one piece of memory; empty: they can."""
    if usage.least_size != usage.largest_size:
        return "its arrays are of different sizes"
    if usage.most_at_once > 1:
        reason = f"{usage.most_at_once} of its arrays are alive at once"
        name = "" if usage.column is None else source_of(usage.file).name_of(usage.line, usage.column, usage.end_column)
        # Whether anything looks at it meanwhile no event says.
        return (
            f"{reason}: {name} has the last one until the next is there" if name and usage.most_at_once == 2 else reason
        )
    return ""


def _writer(usage: Usage, own: dict[_Key, Usage]) -> _Writer | str:
    """Who writes the expression with those around it; a text: why it cannot be told."""
    if usage.column is None:
        return "this Python does not keep which expression of the line it is"
    source = source_of(usage.file)
    found = source.find(usage.line, usage.column, usage.end_column)
    if found is None:
        return "the source is not there, or not an expression of its own"
    root, around = found
    if source.operands(root) is None:
        return "not an operation that is known to take out="
    writer = _Writer(source, usage, own)
    for outer in around:
        if root not in (source.operands(outer) or []) or not writer.is_part(outer):
            break
        root = outer
    writer.choose(root)
    return writer


class _Group:
    """Buffers like the result of one operation, for it and for its operands."""

    def __init__(self, root: ast.expr, size: int) -> None:
        self.root = root
        self.size = size
        self.names: list[str] = []
        self.free: list[str] = []


class _Writer:
    """Writes an expression and its operands into buffers."""

    def __init__(self, source: Source, usage: Usage, own: dict[_Key, Usage]) -> None:
        self._source = source
        self._usage = usage
        self._own = own
        self._root: ast.expr | None = None
        self._before = 0
        self.buffers: dict[str, str] = {}  # name: what makes it
        self.usages: list[Usage] = []

    def is_part(self, node: ast.expr) -> bool:
        """Whether an operation around or within the expression can be written with it."""
        usage = self._usage_of(node)
        if usage is not None:
            return not _unsteady(usage) and _made(usage) == _made(self._usage)
        # It has no memory of its own: NumPy writes it into its operand.
        return isinstance(node, (ast.BinOp, ast.UnaryOp))

    def choose(self, root: ast.expr) -> None:
        """Take this as the whole expression; `usages` are what is in it."""
        self._root = root
        self._write(root, None)

    def advice(self, before: int) -> Advice:
        """Write it, with buffers that are numbered behind so many others."""
        assert self._root is not None
        self._before, self.buffers, self.usages = before, {}, []
        expression = ast.unparse(self._root)
        instead, _, _ = self._write(self._root, None)
        lines = [f"{name} = {text}" for name, text in self.buffers.items()]
        text = "; ".join(lines)
        numpy = f"{self._source.numpy}."
        # A file that takes functions from NumPy by name may call NumPy nothing.
        if not self._source.imports and numpy in f"{instead}{text}" and numpy not in expression:
            text = f"import numpy as {self._source.numpy}; {text}"
        first, *others = sorted(self.usages, key=lambda usage: -usage.bytes)
        return Advice(first, expression, text, instead, "one array of one size at a time", tuple(others))

    def _usage_of(self, node: ast.expr) -> Usage | None:
        return self._own.get((self._usage.file, node.lineno, node.col_offset, node.end_col_offset))

    def _operands(self, node: ast.expr) -> list[ast.expr] | None:
        """What an operation that is written computes with; `None`: it stays as it is."""
        operands = self._source.operands(node)
        if operands is None or not self.is_part(node):
            return None
        made = self._usage_of(node) is not None or any(self._operands(operand) is not None for operand in operands)
        return operands if made else None

    def _size(self, node: ast.expr) -> int:
        usage = self._usage_of(node)
        if usage is not None:
            return usage.largest_size
        return max((self._size(operand) for operand in self._operands(node) or []), default=0)

    def _write(self, node: ast.expr, group: _Group | None) -> tuple[str, _Group | None, str]:
        """The text of a part, and the buffer that it fills if it fills one: in its group, or in one of its own."""
        operands = self._operands(node)
        if operands is None:
            return ast.unparse(node), None, ""
        usage = self._usage_of(node)
        if usage is not None:
            self.usages.append(usage)
        size = self._size(node)
        if group is None or group.size != size:
            group = _Group(node, size)
        in_place = self._source.in_place(node)
        parts = [self._write(operand, group if in_place else None) for operand in operands]
        filled = [(of, name) for _, of, name in parts if of is not None]
        here = [name for of, name in filled if of is group]
        buffer = here[0] if here else self._take(group)
        for of, name in filled:
            if name != buffer:
                of.free.append(name)
        return self._source.written(node, [text for text, _, _ in parts], buffer), group, buffer

    def _take(self, group: _Group) -> str:
        if group.free:
            return group.free.pop()
        name = f"buffer{self._before + len(self.buffers) + 1}"
        first = f"{self._source.numpy}.empty_like({group.names[0]})" if group.names else ast.unparse(group.root)
        self.buffers[name] = first
        group.names.append(name)
        return name
