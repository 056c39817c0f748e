"""The command `doctor`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from .._realtime.checkup import Finding, examine
from .._startup.in_force import start_up
from .._support.durations import parse_seconds
from ._command import Command

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


class Doctor(Command):
    """Check this machine for real-time work.

    Every line says what was found and whether it is fit; where it is not, the next line is the exact fix.
    Exit code 0: fit, perhaps with warnings. 1: something is not fit (with --strict: or there are warnings).
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")
        parser.add_argument("--strict", action="store_true", help="count warnings as failures")
        parser.add_argument(
            "--seconds",
            type=parse_seconds,
            default=1.0,
            help="how long to measure wake-ups at 1 kHz, also as '1 min'; 0: not at all (default 1)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        if not 0 <= arguments.seconds <= 3600:
            print(f"--seconds must be from 0 to 3600, not {arguments.seconds:g}")
            return 2
        findings = [*examine(seconds=arguments.seconds), _children()]
        bad = {"warn", "fail"} if arguments.strict else {"fail"}
        fit = not any(finding.verdict in bad for finding in findings)
        if arguments.json:
            print(json.dumps({"fit": fit, "findings": [asdict(finding) for finding in findings]}, indent=1))
        else:
            print(as_text(findings))
        return 0 if fit else 1


def _children() -> Finding:
    """Whether child processes can be activated from outside."""
    there = start_up()
    asked = f"RTPOOL_ACTIVATE={there.asked}" if there.asked else "RTPOOL_ACTIVATE is not set"
    if there.in_force:
        return Finding("start-up file", f"{there.where} is in force; {asked}", "ok")
    fix = "install rtpool into site-packages (pip install), and start Python without -S; or call rtpool.activate()"
    return Finding("start-up file", f"not in force: {there.why_not}; {asked}", "warn", fix)


def as_text(findings: list[Finding]) -> str:
    """One line a finding, its fix below it."""
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.verdict]}  {finding.what:<22} {finding.found}")
        if finding.fix:
            lines.append(f"{'':<30}fix: {finding.fix}")
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in _MARKS}
    lines += ["", f"{counts['ok']} fit, {counts['warn']} warnings, {counts['fail']} not fit"]
    return "\n".join(lines)
