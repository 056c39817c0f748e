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
