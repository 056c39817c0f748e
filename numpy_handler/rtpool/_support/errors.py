"""The exceptions of rtpool's own."""


class CorruptionError(RuntimeError):
    """An invariant of a pool does not hold: something wrote outside its array, or rtpool has a defect.

    Attributes
    ----------
    invariant : str
        The id of the broken invariant, as in ``src/README.md``.
    """

    def __init__(self, text: str, invariant: str = "") -> None:
        super().__init__(text)
        self.invariant = invariant


def raise_if_broken(pool: object, broken: tuple[str, str] | None) -> None:
    """Raise what a walk of a pool's invariants has found: the first one broken, and how."""
    if broken is not None:
        invariant, text = broken
        raise CorruptionError(f"{pool!r} breaks invariant {invariant}: {text}", invariant)
