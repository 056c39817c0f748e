"""Options: the words of those that are choices, in the order in which the core numbers them, and checking them."""

HUGE_PAGES: tuple[str | bool, ...] = (False, "auto", "2MiB", "1GiB")
WHEN_FULL = ("grow", "fallback", "raise")
ON_MISS = ("fallback", "raise")


def choice(name: str, value: object, choices: tuple[object, ...]) -> int:
    """Give the number of a choice; `ValueError` says which there are."""
    for number, word in enumerate(choices):
        if value == word and type(value) is type(word):
            return number
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def word(value: object, name: str, words: tuple[str, ...]) -> str:
    """Check one of a few words and give it; `ValueError` says which there are."""
    return words[choice(name, value, words)]


def flag(value: object, name: str) -> bool:
    """Check a truth value and give it; `TypeError` for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value
