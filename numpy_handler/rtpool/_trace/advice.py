"""Which temporaries ``out=`` would save: expressions whose memory could be one buffer, and the line to write.

What the trace can tell: whether an expression's arrays always have the same size, and whether each is gone before the
next is made. What it cannot tell (types, shapes) it takes from the source where that is clear, and else says
``"unknown"``.

NumPy lets an operation write into the operand where that is a large temporary: ``a * b + c`` makes one array. The sum
has no allocation of its own then, and goes into the same buffer here.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import NamedTuple

from .figures import Usage
from .source import lines

UNKNOWN = "unknown"

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


class Advice(NamedTuple):
    """What to write for an expression.

    Attributes
    ----------
    usage : Usage
        Where the memory is asked for, and how much.
    expression : str
        What to replace: the expression, with those around it that NumPy writes into the same memory.
    before : str
        A line to run once, before the loop: it makes the buffer. Empty if unknown.
    instead : str
        What to write for the expression: it fills the buffer. ``"unknown"`` where the trace or the source do not say.
    reason : str
        Why, or why it is unknown.
    """

    usage: Usage
    expression: str
    before: str
    instead: str
    reason: str

    def __str__(self) -> str:
        if self.instead == UNKNOWN:
            return f"{self.usage}: {self.expression}: unknown: {self.reason}"
        return (
            f"{self.usage}: {self.expression}\n    before the loop  {self.before}\n    in it            {self.instead}"
        )


def advise(expressions: list[Usage]) -> list[Advice]:
    """Advice for every expression that makes arrays again and again, most bytes first."""
    # Expressions with arrays of their own; one that only makes an array of a number writes into its operand.
    own = {
        (usage.file, usage.line, usage.column, usage.end_column) for usage in expressions if usage.calls > usage.scalars
    }
    found: list[Advice] = []
    for usage in expressions:
        if usage.calls - usage.scalars < 2 or not usage.file:
            continue
        known = sum(advice.instead != UNKNOWN for advice in found)
        found.append(_advice(usage, f"buffer{known + 1}", own))
    return found


def _advice(usage: Usage, buffer: str, own: set[tuple[str, int, int | None, int | None]]) -> Advice:
    def unknown(reason: str) -> Advice:
        return Advice(usage, usage.source, "", UNKNOWN, reason)

    if usage.least_size != usage.largest_size:
        return unknown("its arrays are of different sizes")
    if usage.most_at_once > 1:
        return unknown(f"{usage.most_at_once} of its arrays are alive at once")
    if usage.column is None:
        return unknown("this Python does not keep which expression of the line it is")
    found = _expression(usage)
    if found is None:
        return unknown("the source is not there, or not an expression of its own")
    node, around = found
    names = _names(usage.file)
    whole, instead = node, _with_out(node, buffer, names)
    if instead is None:
        return unknown("not an operation that is known to take out=")
    for outer in around:
        place = (usage.file, outer.lineno, outer.col_offset, outer.end_col_offset)
        if not isinstance(outer, (ast.BinOp, ast.UnaryOp)) or place in own:
            break
        wider = _with_out(outer, buffer, names, whole, instead)
        if wider is None:
            break
        whole, instead = outer, wider
    text = ast.unparse(whole)
    # A file that takes functions from NumPy by name may call NumPy nothing.
    first = names["import"] if f"{names['']}." in instead and f"{names['']}." not in text else ""
    return Advice(usage, text, f"{first}{buffer} = {text}", instead, "one array of one size at a time")


@lru_cache(maxsize=64)
def _names(file: str) -> dict[str, str]:
    """What a file calls NumPy's functions, with their names in NumPy; NumPy itself has none.

    Under "" stands what it calls NumPy, and under "import" what to import first if it calls it nothing.
    """
    tree = _tree(file)
    found = {"np": "", "numpy": "", "": "np"}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "numpy":
                    found[""] = alias.asname or alias.name
                    found[found[""]] = ""
        elif isinstance(node, ast.ImportFrom) and node.module == "numpy" and not node.level:
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    imported = tree is not None and any(_imports_numpy(node) for node in ast.walk(tree))
    found["import"] = "" if imported else "import numpy as np; "
    return found


def _imports_numpy(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) and any(alias.name == "numpy" for alias in node.names)


@lru_cache(maxsize=64)
def _tree(file: str) -> ast.Module | None:
    text = "".join(lines(file))
    try:
        return ast.parse(text) if text else None
    except (SyntaxError, ValueError, RecursionError):
        return None


def _expression(usage: Usage) -> tuple[ast.expr, list[ast.expr]] | None:
    """The expression, and those around it from the innermost on."""
    tree = _tree(usage.file)
    if tree is None:
        return None
    waiting: list[tuple[ast.AST, list[ast.expr]]] = [(tree, [])]
    while waiting:
        node, around = waiting.pop()
        if (
            isinstance(node, ast.expr)
            and (node.lineno, node.col_offset) == (usage.line, usage.column)
            and node.end_col_offset == usage.end_column
        ):
            return node, around
        inner = [node, *around] if isinstance(node, ast.expr) else []
        waiting += [(child, inner) for child in ast.iter_child_nodes(node)]
    return None


def _with_out(
    node: ast.expr, buffer: str, names: dict[str, str], part: ast.expr | None = None, written: str = ""
) -> str | None:
    """The expression as a call that fills the buffer; `part` of it is written so."""

    def text(operand: ast.expr) -> str:
        return written if operand is part else ast.unparse(operand)

    numpy = names[""]
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return f"{numpy}.{_BINARY[type(node.op)]}({text(node.left)}, {text(node.right)}, out={buffer})"
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return f"{numpy}.{_UNARY[type(node.op)]}({text(node.operand)}, out={buffer})"
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        return f"{numpy}.{_COMPARE[type(node.ops[0])]}({text(node.left)}, {text(node.comparators[0])}, out={buffer})"
    if isinstance(node, ast.Call):
        return _call_with_out(node, buffer, names)
    return None


def _call_with_out(node: ast.Call, buffer: str, names: dict[str, str]) -> str | None:
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        name = function.attr if names.get(function.value.id) == "" else ""
    else:
        name = names.get(function.id, "") if isinstance(function, ast.Name) else ""
    if not name or any(keyword.arg in ("out", None) for keyword in node.keywords):
        return None
    if not (_is_ufunc(name) or name in _WITH_OUT):
        return None
    arguments = [ast.unparse(argument) for argument in node.args]
    arguments += [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords]
    return f"{ast.unparse(function)}({', '.join(arguments)}, out={buffer})"


def _is_ufunc(name: str) -> bool:
    import numpy as np

    found = getattr(np, name, None)
    return isinstance(found, np.ufunc) and found.nout == 1
