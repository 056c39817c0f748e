"""The command `top`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable

from .._live import processes, render
from .._support.durations import parse_seconds
from ._command import Command

Show = Callable[[list[render.View], int], None]


class Top(Command):
    """Show the pools of running processes: memory, rates, hits, misses, page faults, real-time sections.

    Processes show themselves when they are started with RTPOOL_LIVE=1; so do their children. They pay nothing for it
    until somebody looks: a thread of theirs sleeps, and wakes once for each look. With a PID that process only, else
    all that may be looked at: one's own, and with root's rights everybody's, also those of other containers.

    On a terminal with rich (pip install rtpool[live]) the screen is drawn anew; else each look is printed. Rates are a
    second's, between two looks. Exit code 1 if the process is not there, not shown, or may not be looked at.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("process", nargs="?", type=int, metavar="PID", help="this process only")
        parser.add_argument(
            "--interval", type=parse_seconds, default=1.0, help="between two looks, such as 500ms (default: 1 s)"
        )
        parser.add_argument("--once", action="store_true", help="two looks, the interval apart (0: one look), and end")
        parser.add_argument("--json", action="store_true", help="print each look as a line of JSON")
        parser.add_argument("--plain", action="store_true", help="print text also where rich is installed")

    def run(self, arguments: argparse.Namespace) -> int:
        if not 0 <= arguments.interval <= 3600 or (arguments.interval == 0 and not arguments.once):
            print("rtpool top: --interval is from above 0 to 3600 seconds; 0 with --once", file=sys.stderr)
            return 2
        with contextlib.ExitStack() as stack:
            watch = _Watch(arguments.process)
            stack.callback(watch.close)
            try:
                if arguments.once:
                    return _once(watch, arguments)
                return _go_on(watch, arguments.interval, _show(arguments, stack))
            except processes.NotShown as error:
                stack.close()
                print(f"rtpool top: {error}", file=sys.stderr)
                return 1


class _Watch:
    """The processes that are looked at, from look to look."""

    def __init__(self, process: int | None) -> None:
        self._only = process
        self._watched: dict[int, processes.Watched] = {}
        self._before: dict[int, processes.Snapshot] = {}

    def look(self) -> tuple[list[render.View], int]:
        """Ask all of them; processes come and go meanwhile. Raises `NotShown` for the only one."""
        hidden = 0
        if self._only is None:
            there, hidden = processes.find()
            there = [process for process in there if process != os.getpid()]
        else:
            there = [self._only]
        views = []
        for process in there:
            try:
                if process not in self._watched:
                    self._watched[process] = processes.Watched(process)
                snapshot = self._watched[process].look()
            except processes.NotShown:
                if self._only is not None:
                    raise
                continue
            except ProcessLookupError as error:
                self._forget(process)
                if self._only is not None:
                    raise processes.NotShown(str(error)) from None
                continue
            views.append(render.View(snapshot, self._before.get(process)))
            self._before[process] = snapshot
        for process in set(self._watched) - set(there):
            self._forget(process)
        return views, hidden

    def _forget(self, process: int) -> None:
        self._watched.pop(process).close()
        self._before.pop(process, None)

    def close(self) -> None:
        for process in list(self._watched):
            self._forget(process)


def _show(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Show:
    if arguments.json:
        return _print_json
    if not arguments.plain and sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from .._live.screen import Screen

        return stack.enter_context(Screen()).show
    return _print_text


def _print_json(views: list[render.View], hidden: int) -> None:
    print(json.dumps({"processes": [render.as_dict(view) for view in views], "hidden": hidden}), flush=True)


def _print_text(views: list[render.View], hidden: int) -> None:
    print(render.text(views, hidden), end="\n\n", flush=True)


def _once(watch: _Watch, arguments: argparse.Namespace) -> int:
    views, hidden = watch.look()
    if arguments.interval:
        time.sleep(arguments.interval)
        views, hidden = watch.look()
    if arguments.json:
        _print_json(views, hidden)
    else:
        print(render.text(views, hidden))
    return 0


def _go_on(watch: _Watch, interval: float, show: Show) -> int:
    due = time.monotonic()
    while True:
        show(*watch.look())
        due = max(due + interval, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
