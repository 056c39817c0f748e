"""Count the instructions of an allocation and its free in an installed rtpool, by Callgrind: the same on every run.

    python tests/wheel/hot_path.py /path/to/python [/path/to/another/python ...]

Each Python has rtpool and NumPy: of a wheel, or built by the compiler of this machine. Counted is what runs inside of
the two functions that NumPy calls while it makes an array and drops it again, at 64 B and at 64 KiB. Needs valgrind;
and rtpool built where valgrind's headers are not (or with -DNVALGRIND), as it else watches every block under Valgrind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = 1000
SIZES = (64, 64 << 10)
# What is counted is cut into parts at each call of `check`: before the first one lie imports and first allocations.
WORK = f"""
import numpy, rtpool
pool = rtpool.Pool("8 MiB")
with rtpool.handler(pool):
    for size in {SIZES}:
        for turns in (100, {PAIRS}):
            for _ in range(turns):
                numpy.empty(size, numpy.uint8)
            pool.check()
"""
# Those that are called: what they jump to has no return of its own, by which Callgrind would see its end.
COUNTED = [f"*HandlerOver<rtpool::pool::Pool>::data_{name}(*" for name in ("malloc", "free")]


def pairs(python: Path | str) -> dict[int, float]:
    """Instructions of a pair, by its size in bytes."""
    with tempfile.TemporaryDirectory(prefix="rtpool-callgrind-") as folder:
        line = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/part"]
        line += [f"--toggle-collect={name}" for name in COUNTED]
        line += ["--dump-before=rtpool::pool::Pool::check()", str(Path(python).absolute()), "-c", WORK]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        parts = [Path(folder, f"part.{number}") for number in range(1, 2 * len(SIZES) + 1)]
        if done.returncode != 0 or not all(part.exists() for part in parts):
            raise SystemExit(f"{python}: Callgrind did not count:\n{done.stderr[-2000:]}")
        counts = [int(re.findall(r"(?m)^(?:totals|summary): (\d+)", part.read_text())[-1]) for part in parts]
    return {size: count / PAIRS for size, count in zip(SIZES, counts[1::2], strict=True)}


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    print(json.dumps({python: pairs(python) for python in sys.argv[1:]}, indent=1))


if __name__ == "__main__":
    main()
