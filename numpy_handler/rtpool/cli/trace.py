"""The command `trace`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from typing import Any

from .._support.sizes import format_size
from .._trace import render
from .._trace.events import TraceError
from .._trace.figures import BYPASS, Usage
from .._trace.trace import Trace
from ._command import Command

_VERBS = {
    "summary": "the whole trace in some lines",
    "lines": "what each line of the program asked for",
    "expressions": "what each expression asked for",
    "temporaries": "expressions whose arrays are born and gone, and which out= would save them",
    "peak": "what was alive when most was",
    "misses": "requests that nothing at hand served, by size and reason",
    "fit": "the smallest pool and plan with no miss (--plan FILE writes the plan)",
    "diff": "this trace beside a second one",
    "csv": "expressions as comma-separated values",
    "html": "a page for browsers, one file: timeline, flame graph, source, misses, advice",
    "speedscope": "a file for speedscope",
    "perfetto": "a trace for Perfetto",
}
_FILES = {"html": ".html", "speedscope": ".speedscope.json", "perfetto": ".perfetto-trace"}


class TraceCommand(Command):
    """Say what a trace tells: who makes which arrays, what they cost, and what would fit.

    Traces are written by `python -m rtpool run --record FILE` and by `rtpool.record`.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = "; ".join(f"{verb}: {text}" for verb, text in _VERBS.items())
        parser.add_argument("verb", choices=[*_VERBS], metavar="VERB", help=verbs)
        parser.add_argument("file", help="the trace")
        parser.add_argument("second", nargs="?", help="for diff: the later trace")
        parser.add_argument("--top", type=int, default=20, metavar="N", help="rows (default: 20; 0: all)")
        parser.add_argument("--plan", metavar="FILE", help="fit: write the plan there")
        parser.add_argument(
            "-o",
            "--output",
            metavar="PATH",
            help="html, speedscope, perfetto: where to write (default: beside the trace)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, arguments: argparse.Namespace) -> int:
        if (arguments.verb == "diff") != (arguments.second is not None):
            print("rtpool trace: diff, and only diff, takes two traces", file=sys.stderr)
            return 2
        try:
            trace = Trace.load(arguments.file)
            if arguments.verb in _FILES:
                return _write(trace, arguments)
            other = Trace.load(arguments.second) if arguments.second is not None else None
            return self._tell(arguments, trace, other)
        except BrokenPipeError:
            raise
        except (OSError, TraceError) as error:
            print(f"rtpool trace: {arguments.file}: {error}", file=sys.stderr)
            return 2

    def _tell(self, arguments: argparse.Namespace, trace: Trace, other: Trace | None) -> int:
        verb, top = arguments.verb, arguments.top or None
        peak = trace.analysis.peak_bytes
        lines: list[str]
        data: Any
        if verb == "summary":
            lines, data = [trace.summary()], trace.as_dict() if arguments.json else None
        elif verb in ("lines", "expressions", "peak"):
            found = {"lines": trace.by_line, "expressions": trace.by_expression, "peak": trace.peak}[verb]()[:top]
            lines, data = render.usage_lines(found, peak), [usage._asdict() for usage in found]
        elif verb == "temporaries":
            advice = trace.advice()[:top]
            lines = render.usage_lines([usage for entry in advice for usage in entry.usages], peak)
            lines += ["", *map(str, advice)] if advice else []
            data = [
                entry._asdict() | {"usage": entry.usage._asdict(), "also": [usage._asdict() for usage in entry.also]}
                for entry in advice
            ]
        elif verb == "misses":
            lines, data = render.miss_lines(trace), [miss._asdict() for miss in trace.misses()]
        elif verb == "fit":
            fit = trace.fit()
            if arguments.plan is not None:
                fit.plan.save(arguments.plan)
            lines = [str(fit), str(fit.plan)]
            data = fit.as_dict()
        elif verb == "diff":
            assert other is not None
            found_differences = trace.diff(other)[:top]
            lines = render.difference_lines(found_differences)
            data = [
                {side: usage and usage._asdict() for side, usage in difference._asdict().items()}
                for difference in found_differences
            ]
        else:
            return _write_csv(trace)
        if arguments.json:
            beside = {
                "resident_bytes": trace.resident_bytes, "page_faults": trace.page_faults, "not_seen": BYPASS,
            }  # fmt: skip
            print(json.dumps(data if verb == "summary" else {verb: data, **beside}))
        else:
            print("\n".join(lines if verb == "summary" else [*lines, "", render.foot(trace)]))
        return 0


def _write(trace: Trace, arguments: argparse.Namespace) -> int:
    path = arguments.output or arguments.file + _FILES[arguments.verb]
    write = {"html": trace.to_html, "speedscope": trace.to_speedscope, "perfetto": trace.to_perfetto}
    write[arguments.verb](path)
    print(f"{path}: {format_size(os.path.getsize(path))}")
    return 0


def _write_csv(trace: Trace) -> int:
    columns = [*Usage._fields, "source"]
    writer = csv.DictWriter(sys.stdout, columns)
    writer.writeheader()
    writer.writerows(usage._asdict() | {"source": usage.source} for usage in trace.by_expression())
    # What no row can tell stands in the last one, whose figures add nothing.
    empty = dict.fromkeys(("file", "column", "end_column", "source"), "")
    writer.writerow(dict.fromkeys(columns, 0) | empty | {"function": render.foot(trace)})
    return 0
