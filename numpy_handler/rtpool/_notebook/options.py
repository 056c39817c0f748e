"""The options of the magics: words with a dash in front of the statement."""

from __future__ import annotations

from typing import NamedTuple

USAGE = """\
%load_ext rtpool

    %rtpool statement     the statement several times each way in turns, as %timeit would: with NumPy as it is, then
                          with arrays from a pool; last, once more while it is recorded
    %%rtpool              the cell once, with arrays from the pool, recorded
    %%rtpool -c           compare: the cell first with NumPy as it is, then with the pool, then once more, recorded

    -c, --compare         also with NumPy as it is (a cell; a statement is compared anyway)
    -r, --rounds N        turns of each way (a statement: 5, a cell: 1)
    -n, --number N        times in a turn (a statement: as many as take a tenth of a second, a cell: 1)
    -t, --top N           lines of the program to show (default: 8)

A cell that changes what it reads (x += 1), writes files or draws at random does so each time that it runs: three times
with -c, and once without."""


class UsageError(ValueError):
    """Options that are none; the text says what there is."""


class Options(NamedTuple):
    """What was asked for. `rounds` and `number`: 0 means the default."""

    compare: bool
    rounds: int
    number: int
    top: int
    statement: str


_FLAGS = {"-c": "compare", "--compare": "compare"}
_NUMBERS = {
    "-r": "rounds", "--rounds": "rounds", "-n": "number", "--number": "number", "-t": "top", "--top": "top",
}  # fmt: skip


def parse(line: str) -> Options:
    """Read the options in front of a statement."""
    found: dict[str, int] = {"rounds": 0, "number": 0, "top": 8}
    compare = False
    rest = line.strip()
    while rest.startswith("-"):
        word, _, after = rest.partition(" ")
        if word == "--":
            rest = after.strip()
            break
        if word in _FLAGS:
            compare = True
            rest = after.strip()
            continue
        name, value = (word[:2], word[2:]) if word[:2] in _NUMBERS and not word.startswith("--") else (word, "")
        if name.partition("=")[0] in _NUMBERS and "=" in name:
            name, _, value = name.partition("=")
        if name not in _NUMBERS:
            if word[1:2].isalpha() or word.startswith("--"):
                raise UsageError(f"there is no option {word}\n\n{USAGE}")
            break  # a statement that begins with a minus
        if not value:
            value, _, after = after.strip().partition(" ")
        if not value.isdecimal() or not 1 <= int(value) <= 1_000_000:
            raise UsageError(f"{name} needs a whole number from 1 on, not {value!r}\n\n{USAGE}")
        found[_NUMBERS[name]] = int(value)
        rest = after.strip()
    return Options(compare, found["rounds"], found["number"], found["top"], rest)
