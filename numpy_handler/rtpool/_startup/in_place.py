"""Running a program in this very process, where no start-up file is in force.

It becomes the `__main__` module, as it would be without. What differs: NumPy and rtpool are imported before it begins,
and there are frames above its own.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.util
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pkgutil import get_importer
from types import CodeType, TracebackType
from typing import Any, NoReturn

import _rtpool_start

from .command import Program
from .session import begin_session


def execute(program: Program, arguments: list[str], options: str) -> NoReturn:
    """Run it and end as it ends: an exception goes on to the interpreter, which tells it and ends the process."""
    start = _rtpool_start.Start("1", options)
    try:
        start.session = begin_session(start)
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        print(f"rtpool run: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    atexit.register(start.end)
    word = program.words[-1]
    main = vars(sys.modules["__main__"])
    main.clear()
    main |= {"__name__": "__main__", "__doc__": None, "__package__": None, "__loader__": None, "__spec__": None}
    main |= {"__annotations__": {}, "__builtins__": builtins}
    first: CodeType | None = None
    try:
        if program.how == "module":
            _first_on_path(os.getcwd())
            sys.argv[:] = ["-m", *arguments]
            first = runpy._run_module_as_main.__code__  # type: ignore[attr-defined]
            runpy._run_module_as_main(word)  # type: ignore[attr-defined]
        elif program.how == "script" and word != "-" and _has_main(word):
            _first_on_path(os.path.abspath(word), always=True)
            sys.argv[:] = [word, *arguments]
            first = runpy._run_module_as_main.__code__  # type: ignore[attr-defined]
            runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        else:
            sys.argv[:] = ["-c" if program.how == "code" else word, *arguments]
            first = _compile(program, main)
            exec(first, main)
    except BaseException:
        _show_from(first)
        raise
    raise SystemExit(0)


def _compile(program: Program, main: dict[str, Any]) -> CodeType:
    word = program.words[-1]
    source: str | bytes
    if program.how == "code":
        _first_on_path("")
        source, name = word, "<string>"
    elif word == "-":
        _first_on_path("")
        source, name = sys.stdin.read(), "<stdin>"
        main["__file__"] = name
    else:
        _first_on_path(os.path.dirname(os.path.realpath(word)))
        name = os.path.abspath(word)
        main |= {"__file__": name, "__cached__": None, "__loader__": SourceFileLoader("__main__", name)}
        with open(word, "rb") as file:
            source = importlib.util.decode_source(file.read())
    return compile(source, name, "exec", dont_inherit=True)


def _first_on_path(folder: str, *, always: bool = False) -> None:
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder  # where `python -m rtpool` has the working directory
    elif always:
        sys.path.insert(0, folder)


def _has_main(path: str) -> bool:
    """Whether it is a directory or an archive, whose `__main__` module is the program."""
    if os.path.isdir(path):
        return True
    importer = get_importer(path)
    return importer is not None and hasattr(importer, "archive")


def _show_from(first: CodeType | None) -> None:
    """Let the traceback that is about to be shown begin with the program's own first line, not with ours."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.excepthook = shown
        for code in (execute.__code__, first):
            while trace is not None and trace.tb_frame.f_code is not code:
                trace = trace.tb_next
        shown(kind, error.with_traceback(trace), trace)

    sys.excepthook = show
