"""The command `info`."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import rtpool
from rtpool import _core
from rtpool._pool.objects import refusal

from .._startup.in_force import start_up
from . import _machine
from ._command import Command


class Info(Command):
    """Show the versions, this machine, and the default pool as the environment sets it.

    The pool is made with its options from the RTPOOL_ variables; what is not in force is named with the fix.
    Exit code 1 if the variables describe no pool, or something asked for is not in force.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print as JSON")

    def run(self, arguments: argparse.Namespace) -> int:
        try:
            pool = rtpool.default_pool()
            effective = pool.effective
        except (ValueError, OSError, MemoryError) as error:
            print(json.dumps({"error": str(error)}) if arguments.json else f"the default pool cannot be made: {error}")
            return 1
        kernel, supported = _core.copy_settings()[0], [name for name, there in _core.copy_kernels() if there]
        variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith("RTPOOL_")}
        told: dict[str, Any] = {
            **_machine.describe(),
            "lockable_memory": _core.lockable_memory(),
            "copy_kernel": kernel,
            "copy_kernels_supported": supported,
            "variables": variables,
            "start_up": _start_up(),
            "debug": pool.debug,
            "objects": refusal() or "can be the pool's: objects='pool'",
        }
        if arguments.json:
            told["default_pool"] = {
                **effective._asdict(),
                "degradations": [d._asdict() for d in effective.degradations],
            }
            print(json.dumps(told, indent=1))
        else:
            for name, value in told.items():
                print(f"{name.replace('_', ' '):<24}{_shown(value)}")
            print(f"\ndefault pool\n{effective}")
        return 0 if effective.as_asked else 1


def _start_up() -> dict[str, Any]:
    there = start_up()
    told = {"in_force": there.in_force, "file": there.where}
    return told if there.in_force else told | {"why_not": there.why_not}


def _shown(value: object) -> str:
    if value is None:
        return "unlimited"
    if isinstance(value, dict):
        return ", ".join(f"{key}={entry}" for key, entry in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
