"""Streams that are over at this worker, kept for a while: their clients may come back for the rest, at any gateway.

Owns the memory of them and its bounds, in time, number and bytes. Pure.
"""

from collections import OrderedDict
from typing import Final

from shared.worker.progress import Progress

MOST: Final = 4096
"""Streams kept at once."""
MOST_BYTES: Final = 64 << 20
"""That they take together."""


class Keeping:
    """The latest attempt of each request, for `seconds` after it ended here."""

    def __init__(self, seconds: float, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._seconds = seconds
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[float, Progress]] = OrderedDict()  # by request id, the oldest first
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, progress: Progress, now: float) -> None:
        """Keep an attempt, unless nobody can ask for it or a newer one of its request is kept."""
        request = progress.request
        if not request.memo or not self._seconds:
            return
        known = self._kept.get(request.request_id)
        if known is not None and known[1].request.attempt > request.attempt:
            return
        self._drop(request.request_id)
        self._kept[request.request_id] = (now + self._seconds, progress)
        self.held_bytes += progress.size
        self.tidy(now)

    def get(self, request_id: str, now: float) -> Progress | None:
        """What is kept of a request."""
        self.tidy(now)
        known = self._kept.get(request_id)
        return known[1] if known is not None else None

    def tidy(self, now: float) -> None:
        """Forget what has been kept for long enough, and the oldest where it is too much."""
        while self._kept:
            request_id, (until, _) = next(iter(self._kept.items()))
            if until > now and len(self._kept) <= self._most and self.held_bytes <= self._most_bytes:
                return
            self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        known = self._kept.pop(request_id, None)
        if known is not None:
            self.held_bytes -= known[1].size
