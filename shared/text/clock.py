"""Text for measuring: each token shows the moment at which it was turned into text."""

import time


class ClockText:
    """Has TextStream's methods; each token's text is the monotonic clock, in nanoseconds, after a space.

    Stop strings are not looked for: the text is not the model's.
    """

    __slots__ = ()

    matched: str | None = None

    def push(self, token_id: int) -> str:  # noqa: ARG002  (the moment counts, not the token)
        """The moment of the call."""
        return f" {time.monotonic_ns()}"

    def flush(self) -> str:
        """Nothing is ever held back."""
        return ""
