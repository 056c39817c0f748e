"""Build everything with each compiler that can be had here, and list its warnings.

    python tests/compilers/run.py [--only g++-12 'clang++*'] [--systems FOLDER] [--missing] [--record]

Compilers are g++-N and clang++-N on PATH, and the g++ and clang++ of other Debian systems on this machine (root
folders below FOLDER; ../interpreters/systems.py; root only; clang, GoogleTest and what --only names in full, such as
g++-14, are fetched there by apt-get where they are missing, and go with the run). Each builds the core, its tests,
benchmark and schedules, and the binding, with all warnings that the project asks for (`-Wall -Wextra -Wpedantic`).
Exit code 0: every build is there and none warned; 1: one is not, or did; 2: there was no compiler.
`--record` writes results/compilers.json as each ends; compilers run before stay in it. Each takes some ten minutes; a
run may be ended at any time, and what is left be run by `--missing`, which goes on with a build where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interpreters"))
from plain_text import plain
from systems import System, Unavailable, known

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

WORK = ROOT / "build" / "compilers"
RESULTS = HERE / "results" / "compilers.json"
BUILD = ("meson>=1.2", "ninja", "numpy>=2.0")
NAMED = re.compile(r"(clang|g)\+\+-\d+")
OPTIONS = ("-Dcore_tests=true", "-Dcore_bench=true", "-Dbuildtype=release", "-Dtogether=true")


@dataclass(frozen=True)
class Compiler:
    name: str
    program: str
    system: System | None = None

    def command(self, *parts: object) -> list[str]:
        return self.system.command(*parts) if self.system is not None else [str(part) for part in parts]

    @property
    def where(self) -> str:
        return self.system.name if self.system is not None else "this system"

    def version(self) -> str:
        """As it tells it, or nothing where it does not start."""
        line = self.command(self.program, "--version")
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""


def here() -> list[Compiler]:
    found: dict[str, Compiler] = {}
    for folder in os.get_exec_path():
        for kind in ("g++", "clang++"):
            for path in sorted(Path(folder).glob(f"{kind.replace('+', '[+]')}-[0-9]*")):
                if NAMED.fullmatch(path.name):
                    found.setdefault(path.name, Compiler(path.name, str(path)))
    return list(found.values())


def there(system: System, kinds: list[str], names: list[str]) -> list[Compiler]:
    """Those of the compilers that this system calls g++ and clang++ which are asked for, and of the others that it can
    have, those that `names` has."""
    packages = {"g++": "g++", "clang++": "clang"} | {name: name.replace("clang++", "clang") for name in names}
    wanted = [*kinds, *names]
    lacking = [packages[name] for name in wanted if not Compiler(name, name, system).version()]
    if wanted and not (system.root / "usr/include/gtest/gtest.h").exists():
        lacking.append("libgtest-dev")
    if lacking:
        subprocess.run(system.command("apt-get", "update", "-qq"), capture_output=True, check=False)
    for package in lacking:  # one that is not to be had keeps no other out
        install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", package)
        subprocess.run(system.command(*install), capture_output=True, check=False)
    found = []
    for program in wanted:
        version = Compiler(program, program, system).version()
        if number := re.search(r"(?:version |\) )(\d+)\.", version):
            found.append(Compiler(f"{program.partition('-')[0]}-{number.group(1)}", program, system))
    return found


def environment(compiler: Compiler, log: Path) -> Path:
    """A folder with the programs of the build, for the system that the compiler is of."""
    name = re.sub(r"\W+", "-", compiler.where).strip("-").lower()
    folder = WORK / f"venv-{name}"
    python, whole = folder / "bin" / "python", folder / "whole"
    if not whole.exists():
        program = sys.executable if compiler.system is None else "python3"
        run(compiler, log, program, "-m", "venv", "--clear", folder)
        if run(compiler, log, python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *BUILD) == 0:
            whole.touch()
    return folder / "bin"


def run(compiler: Compiler, log: Path, *command: object) -> int:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        line = compiler.command(*command)
        return subprocess.run(line, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def build(compiler: Compiler, goes_on: bool) -> dict[str, Any]:
    """`goes_on`: where a build that was ended is. What that one warned of is in its log, which goes on as well."""
    log = WORK / f"{compiler.name}.log"
    folder = WORK / compiler.name
    goes_on = goes_on and (folder / "build.ninja").exists()
    if not goes_on:
        log.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    programs = environment(compiler, log)
    begin = time.monotonic()
    path = f"PATH={programs}:/usr/local/bin:/usr/bin:/bin"
    # What a compiler said of a source that has not changed, ccache says again.
    launcher = shutil.which("ccache") if compiler.system is None else None
    settings = ("env", path, f"CXX={f'{launcher} ' if launcher else ''}{compiler.program}")
    code = 0 if goes_on else run(compiler, log, *settings, "meson", "setup", folder, *OPTIONS)
    if code == 0:
        code = run(compiler, log, *settings, "ninja", "-k", "0", "-C", folder)
    text = log.read_text(encoding="utf-8", errors="replace")
    return {
        "compiler": compiler.name,
        "version": compiler.version(),
        "system": compiler.where,
        "built": code == 0,
        "warnings": warnings(text),
        **({} if goes_on else {"seconds": round(time.monotonic() - begin)}),
        "date": time.strftime("%Y-%m-%d"),
    }


def warnings(log: str) -> list[str]:
    """Those of the last time that each file was compiled: it may have been mended since an earlier one."""
    found: dict[str, set[str]] = {}
    step = ""
    for line in log.splitlines():
        if begun := re.match(r"\[\d+/\d+\] (.+)", line):
            step = begun[1]
            found[step] = set()
        elif re.search(r"[\w\]]:\d+: warning: ", line):
            found.setdefault(step, set()).add(plain(line.strip()).replace("../", ""))
    return sorted(set().union(*found.values()))


def good(row: dict[str, Any]) -> bool:
    return bool(row["built"]) and not row["warnings"]


def recorded() -> list[dict[str, Any]]:
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))["run"]) if RESULTS.exists() else []


def record(rows: list[dict[str, Any]]) -> None:
    before = recorded()
    merged = {row["compiler"]: row for row in [*before, *rows]}
    order = sorted(merged.values(), key=lambda row: (row["compiler"].split("-")[0], int(row["compiler"].split("-")[1])))
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "command": "python tests/compilers/run.py --record",
        "options": [*OPTIONS, "-Dwarning_level=3"],
        "run": order,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="compilers whose names match")
    parser.add_argument("--systems", type=Path, help="where root folders of other systems lie")
    parser.add_argument("--missing", action="store_true", help="compilers that the results do not have, or that warned")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    done = {row["compiler"] for row in recorded() if good(row)} if arguments.missing else set()
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        compilers = {compiler.name: compiler for compiler in here()}
        for root in known(arguments.systems):
            patterns = [name for name in arguments.only if name not in {*compilers, *done}]
            kinds = [kind for kind in ("g++", "clang++") if any(each.startswith((kind, "*")) for each in patterns)]
            names = [name for name in patterns if NAMED.fullmatch(name)]
            if not kinds:
                continue
            try:
                system = stack.enter_context(System(root, ROOT))
            except Unavailable as reason:
                print(f"left out: {reason}", flush=True)
                continue
            for compiler in there(system, kinds, names):
                compilers.setdefault(compiler.name, compiler)
        for name, compiler in compilers.items():
            if name in done or not any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only):
                continue
            row = build(compiler, arguments.missing)
            rows.append(row)
            what = "built" if row["built"] else f"NOT built (see {(WORK / name).relative_to(ROOT)}.log)"
            told = f"{row['version']} ({row['system']}): {what}, {len(row['warnings'])} warnings"
            print(told, *row["warnings"], sep="\n  ", flush=True)
            if arguments.record:
                record(rows)
    if not rows:
        return 0 if done else 2
    return 0 if all(map(good, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
