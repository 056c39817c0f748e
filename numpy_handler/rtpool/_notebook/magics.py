"""The magics ``%rtpool`` and ``%%rtpool``.

A statement is run several times, as ``%timeit`` does; a cell once, as ``%%time`` does, unless it is to be compared.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import CodeType
from typing import Any

from . import measure, options, render


def load(shell: Any) -> None:
    """Give an IPython shell the magics."""

    def rtpool(line: str, cell: str | None = None) -> Any:
        return _magic(shell, line, cell)

    rtpool.__doc__ = "Run code with arrays from a pool: time, page faults, temporaries, peak.\n\n" + options.USAGE
    shell.register_magic_function(rtpool, "line_cell", "rtpool")


def unload(shell: Any) -> None:
    """Take the magics away again."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("rtpool", None)


def _magic(shell: Any, line: str, cell: str | None) -> Any:
    try:
        asked = options.parse(line)
        if cell is None and not asked.statement:
            raise options.UsageError(options.USAGE)
        if cell is not None and asked.statement:
            raise options.UsageError(f"behind %%rtpool stand options only, not {asked.statement!r}\n\n{options.USAGE}")
    except options.UsageError as error:
        print(error)
        return None
    one = cell is None
    source = asked.statement if one else cell
    assert source is not None
    try:
        name, body, last = _compiled(shell, source)
    except SyntaxError:
        shell.showsyntaxerror()
        return None
    space = shell.user_ns

    def code() -> Any:
        if body is not None:
            exec(body, space)
        return eval(last, space) if last is not None else None

    rounds, number = asked.rounds or (5 if one else 1), asked.number or (0 if one else 1)
    try:
        outcome = measure.run(code, compare=one or asked.compare, rounds=rounds, number=number, collect=not one)
    except measure.Busy as error:
        print(f"rtpool: {error}")
        return None
    print(render.text(outcome, name, asked.top, lambda file: _cell(shell, file)))
    return None if one else outcome.value


def _cell(shell: Any, file: str) -> str:
    """What the shell calls a cell, such as ``In[3]``; empty for other files, and where it cannot say."""
    known = getattr(shell.compile, "format_code_name", None)
    found = known(file) if known is not None else None
    return str(found[1]) if found else ""


def _compiled(shell: Any, source: str) -> tuple[str, CodeType | None, CodeType | None]:
    """The name under which Python knows the source, its statements, and the expression at its end."""
    text = shell.transform_cell(source)
    name = shell.compile.cache(text, shell.execution_count, raw_code=source)
    tree = shell.transform_ast(shell.compile.ast_parse(text, filename=name))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    compiled: Callable[..., CodeType] = shell.compile
    body = compiled(tree, name, "exec") if tree.body else None
    value = compiled(ast.Expression(last.value), name, "eval") if last is not None else None
    return name, body, value
