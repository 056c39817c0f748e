"""Expressions written with ``out=``: what the source of a program says about it."""

from __future__ import annotations

import ast
from functools import lru_cache

import numpy as np

from .source import lines

_BINARY = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder", ast.Pow: "power", ast.MatMult: "matmul", ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or", ast.BitXor: "bitwise_xor", ast.LShift: "left_shift", ast.RShift: "right_shift",
}  # fmt: skip
_UNARY = {ast.USub: "negative", ast.UAdd: "positive", ast.Invert: "invert"}
_COMPARE = {
    ast.Gt: "greater", ast.GtE: "greater_equal", ast.Lt: "less", ast.LtE: "less_equal", ast.Eq: "equal",
    ast.NotEq: "not_equal",
}  # fmt: skip
# Functions that take `out=` and fill it with what they return otherwise, beside the ufuncs.
_WITH_OUT = {"clip", "dot", "matmul", "cumsum", "cumprod", "take", "concatenate", "stack", "choose", "round"}
_BY_ELEMENT = {"clip", "round"}  # of these, with results of the type of what they compute with
_SIZES = {char: np.dtype(char).itemsize for char in np.typecodes["All"] if char not in "SUVOMm"}  # bytes of numbers


class Source:
    """A file of the program: its expressions by where they stand, and what it calls NumPy.

    Attributes
    ----------
    numpy : str
        What it calls NumPy, or shall.
    imports : bool
        Whether it calls NumPy anything.
    """

    def __init__(self, file: str) -> None:
        text = "".join(lines(file))
        try:
            tree = ast.parse(text) if text else None
        except (SyntaxError, ValueError, RecursionError):
            tree = None
        self.numpy, self.imports = "np", False
        self._functions: dict[str, str] = {}  # what it calls NumPy's functions: their names in NumPy
        self._modules = {"np", "numpy"}
        self._found: dict[tuple[int, int, int | None], tuple[ast.expr, list[ast.expr]]] = {}
        self._assigned: dict[ast.expr, str] = {}
        if tree is not None:
            self._note_imports(tree)
            self._note_expressions(tree)

    def find(self, line: int, column: int, end_column: int | None) -> tuple[ast.expr, list[ast.expr]] | None:
        """The expression that stands there, and those around it from the innermost on."""
        return self._found.get((line, column, end_column))

    def name_of(self, line: int, column: int, end_column: int | None) -> str:
        """The name that gets the value of the expression there, or of one around it; empty if none does."""
        node, around = self.find(line, column, end_column) or (None, [])
        parts = [node, *around] if node is not None else []
        return next((self._assigned[part] for part in parts if part in self._assigned), "")

    def operands(self, node: ast.expr) -> list[ast.expr] | None:
        """What an operation computes with, if `written` can write it; `None`: it cannot."""
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return [node.left, node.right]
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return [node.operand]
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return [node.left, node.comparators[0]]
        if isinstance(node, ast.Call):
            name = self._function(node)
            known = name and not any(keyword.arg in ("out", None) for keyword in node.keywords)
            return list(node.args) if known and (_types(name) is not None or name in _WITH_OUT) else None
        return None

    def in_place(self, node: ast.expr) -> bool:
        """Whether an operation may write where an operand is, and one as large be computed where its result goes.

        The former goes for what works by element. The latter, too, if numbers that it computes with have the type of
        its result where they are as large: an operand of another type is converted to that in any case, be it when it
        is stored or when it is read.
        """
        if isinstance(node, ast.BinOp):
            return not isinstance(node.op, ast.MatMult)
        if isinstance(node, ast.UnaryOp):
            return True
        if not isinstance(node, ast.Call) or node.keywords:
            return False
        name = self._function(node)
        if name in _BY_ELEMENT:
            return True
        types = _types(name)
        return types is not None and all(
            taken == gives or _SIZES[taken] != _SIZES[gives] for takes, gives in types for taken in takes
        )

    def written(self, node: ast.expr, operands: list[str], buffer: str) -> str:
        """An operation with its operands as they are written, as a call that fills the buffer."""
        arguments = ", ".join(operands)
        if isinstance(node, ast.Call):
            keywords = [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords]
            return f"{ast.unparse(node.func)}({', '.join([arguments, *keywords])}, out={buffer})"
        if isinstance(node, ast.BinOp):
            name = _BINARY[type(node.op)]
        elif isinstance(node, ast.UnaryOp):
            name = _UNARY[type(node.op)]
        else:
            assert isinstance(node, ast.Compare)
            name = _COMPARE[type(node.ops[0])]
        return f"{self.numpy}.{name}({arguments}, out={buffer})"

    def _function(self, node: ast.Call) -> str:
        """The name in NumPy of what is called; empty if it is none of NumPy's."""
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            return function.attr if function.value.id in self._modules else ""
        return self._functions.get(function.id, "") if isinstance(function, ast.Name) else ""

    def _note_imports(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == "numpy":
                        self.numpy, self.imports = alias.asname or alias.name, True
                        self._modules.add(self.numpy)
            elif isinstance(node, ast.ImportFrom) and node.module == "numpy" and not node.level:
                self._functions |= {alias.asname or alias.name: alias.name for alias in node.names}

    def _note_expressions(self, tree: ast.Module) -> None:
        waiting: list[tuple[ast.AST, list[ast.expr]]] = [(tree, [])]
        while waiting:
            node, around = waiting.pop()
            inner: list[ast.expr] = []
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._assigned[node.value] = node.targets[0].id
            if isinstance(node, ast.expr):
                self._found[node.lineno, node.col_offset, node.end_col_offset] = node, around
                inner = [node, *around]
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]


@lru_cache(maxsize=64)
def source_of(file: str) -> Source:
    """The source of a file, read once."""
    return Source(file)


def _types(name: str) -> list[tuple[str, str]] | None:
    """What a ufunc of one result takes and gives, by its inner loops on numbers; `None`: it is none."""
    found = getattr(np, name, None)
    if not isinstance(found, np.ufunc) or found.nout != 1:
        return None
    loops = [loop.partition("->")[::2] for loop in found.types]
    return [(takes, gives) for takes, gives in loops if set(takes + gives) <= set(_SIZES)]
