"""Options that are choices or truth values: what is none of them is refused with what there is."""

from __future__ import annotations

import pytest

from rtpool._support.options import HUGE_PAGES, WHEN_FULL, choice, flag, word


def test_choices_are_numbered_as_the_core_numbers_them() -> None:
    assert [choice("huge_pages", one, HUGE_PAGES) for one in (False, "auto", "2MiB", "1GiB")] == [0, 1, 2, 3]
    assert choice("when_full", "raise", WHEN_FULL) == 2


@pytest.mark.parametrize("value", [0, None, "never", ["auto"]])
def test_other_choices_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="huge_pages must be one of False, 'auto', '2MiB', '1GiB', not"):
        choice("huge_pages", value, HUGE_PAGES)


def test_words() -> None:
    assert word("tune", "malloc", ("keep", "tune")) == "tune"
    with pytest.raises(ValueError, match="malloc must be one of 'keep', 'tune', not 'Tune'"):
        word("Tune", "malloc", ("keep", "tune"))


def test_flags() -> None:
    assert flag(True, "strict") is True
    for other in (1, None, "yes"):
        with pytest.raises(TypeError, match="strict must be True or False"):
            flag(other, "strict")
