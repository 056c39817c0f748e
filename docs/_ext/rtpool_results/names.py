"""Names of cases as people read them."""

from __future__ import annotations

LOOPS = {
    "dictionaries": "20,000 dictionaries and their JSON",
    "lists": "a list of 200,000 values",
    "table": "pandas: group-by and rolling mean",
    "contours": "OpenCV: objects by their contours",
    "controller": "Kalman filter and controller, with log",
    "workers": "the controller, and four threads",
}
CASES = {"frames": "{}p camera frame", "moving": "motion in a {}p frame"}
FIRST = {
    "rtpool": "rtpool, prepared by a plan",
    "rtpool, a warm-up": "rtpool, after a warm-up",
    "out": "by hand, out=",
    "numpy": "NumPy",
}
RECORDERS = {
    "numpy": "nothing, NumPy's default",
    "tracemalloc-1": "tracemalloc, one frame",
    "tracemalloc-25": "tracemalloc, 25 frames",
    "memray": "memray",
    "pool": "nothing, a pool",
    "totals": 'rtpool.record(mode="totals")',
    "times": 'rtpool.record(stacks="none")',
    "sites": 'rtpool.record(stacks="site")',
    "stacks": 'rtpool.record(stacks="full")',
}


def case(text: str) -> str:
    """The name of a case: `two_lines:100000` is `two lines, 1e5 values`."""
    if text.isdigit():
        return f"{int(text):,} values"
    name, _, argument = text.partition(":")
    if name in CASES:
        return CASES[name].format(argument)
    name = name.replace("_", " ")
    if not argument:
        return name
    exponent = len(argument) - 1
    return f"{name}, 1e{exponent} values" if argument == f"1{'0' * exponent}" else f"{name}, {argument}"
