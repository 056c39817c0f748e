"""The words of the options that are choices, in the order in which the core numbers them."""

HUGE_PAGES: tuple[str | bool, ...] = (False, "auto", "2MiB", "1GiB")
WHEN_FULL = ("grow", "fallback", "raise")
ON_MISS = ("fallback", "raise")


def choice(name: str, value: object, choices: tuple[object, ...]) -> int:
    """Give the number of a choice; `ValueError` says which there are."""
    for number, word in enumerate(choices):
        if value == word and type(value) is type(word):
            return number
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
