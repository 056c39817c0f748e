"""What the C interface for other extensions costs over the way that NumPy's own arrays take.

    python bench/interface.py --build build/bench [--rounds 15] [--record]

`core_bench_rtpool` calls the pool as the binding does, `core_bench_interface` the same pool by the functions of
rtpool/rtpool.h, through the table. Instructions of a pair of allocation and release are counted by callgrind; times are
taken in turns, and what counts is the median of the differences within a round. Exits with 1 if a pair takes more than
5 ns more. `--record` writes results/interface.json and interface.txt. Wants a quiet machine for its times.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rtpool.cli import _machine

HERE = Path(__file__).resolve().parent
MOST_NS = 5.0
COUNTED = {"64 B": 64, "1 KiB": 1024, "64 KiB": 65536, "16 MiB": 16 << 20}
PROGRAMS = {"internal": "core_bench_rtpool", "interface": "core_bench_interface"}
PAIRS = 1000  # of the suite `hits`


def count_instructions(program: Path, size: int) -> float | None:
    """Instructions of a pair, or None where there is no callgrind."""
    if shutil.which("valgrind") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rtpool-bench-") as folder:
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured_hits"]
        command += [f"--callgrind-out-file={folder}/out", str(program), "--suite", "hits", "--size", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1]) / PAIRS


def time_pairs(program: Path) -> dict[str, float]:
    """Nanoseconds of a pair by size."""
    command = [str(program), "--json", "--quick", "--suite", "pairs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {row["label"]: row["median"] for row in json.loads(done.stdout)["rows"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="the build folder with bench/cpp in it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    programs = {name: arguments.build / "bench" / "cpp" / program for name, program in PROGRAMS.items()}
    counted = {
        label: {name: count_instructions(program, size) for name, program in programs.items()}
        for label, size in COUNTED.items()
    }
    times: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for turn in range(arguments.rounds):
        for name in sorted(programs, reverse=bool(turn % 2)):
            times[name].append(time_pairs(programs[name]))
    rows = []
    for label in times["internal"][0]:
        internal = [one[label] for one in times["internal"]]
        interface = [one[label] for one in times["interface"]]
        more = statistics.median(b - a for a, b in zip(internal, interface, strict=True))
        rows.append(
            {
                "size": label,
                "internal": statistics.median(internal),
                "interface": statistics.median(interface),
                "more": more,
            }
        )
    machine = _machine.describe()
    table = [
        f"{machine['processor']}, {machine['processors']} processors, {machine['system']}",
        f"$ python bench/interface.py --build {arguments.build} --rounds {arguments.rounds}",
        "",
        f"{'allocate + release of':<24}{'internal, ns':>14}{'interface, ns':>15}{'more, ns':>10}{'instructions':>22}",
    ]
    for row in rows:
        both = counted.get(row["size"], {})
        text = f"{both['internal']:.0f} and {both['interface']:.0f}" if both and None not in both.values() else ""
        table.append(
            f"{row['size']:<24}{row['internal']:>14.2f}{row['interface']:>15.2f}{row['more']:>10.2f}{text:>22}"
        )
    print("\n".join(table))
    if arguments.record:
        result = {
            "machine": machine,
            "command": table[1][2:],
            "rounds": arguments.rounds,
            "pairs_ns": rows,
            "instructions": counted,
        }
        (HERE / "results" / "interface.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (HERE / "results" / "interface.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    return 1 if any(row["more"] > MOST_NS for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
