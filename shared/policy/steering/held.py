"""A wish that counts only when it lasts."""


class Held:
    """Of numbers above, or below, the present one: since when there was such a wish, and the mildest one since."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._mildest = 0

    def wish(self, number: int, present: int, now: float) -> None:
        """Take down what is wanted now; what is wanted is beyond the present number, each time on the same side."""
        if self._since is None:
            self._since, self._mildest = now, number
        elif abs(number - present) < abs(self._mildest - present):
            self._mildest = number

    def drop(self) -> None:
        """It is wanted no more."""
        self._since = None

    def after(self, seconds: float, now: float) -> int | None:
        """Return the mildest wish once it has lasted so long."""
        return self._mildest if self._since is not None and now - self._since >= seconds else None

    def lasted(self, now: float) -> float:
        """Say for how long it has been wanted."""
        return now - self._since if self._since is not None else 0.0
