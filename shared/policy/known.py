"""The attempts a worker knows: those held, with what each holds, and for a bounded memory those that are over."""

from typing import Final, Generic, TypeVar

from shared.policy.recent import Recent

Key = tuple[str, int]
"""(request_id, attempt)."""
H = TypeVar("H")

REMEMBERED: Final = 16_384
"""Requests of which it is remembered which attempts are over; much longer than a message can be late."""


class Known(Generic[H]):
    """Of one request an older attempt may still be leaving while the newer one is held already."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._held: dict[Key, H] = {}
        self._attempts: dict[str, tuple[int, ...]] = {}  # held ones of a request, the oldest first
        self._over: Recent[str, int] = Recent(remembered)
        self._unwanted: set[Key] = set()  # of the held ones

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def get(self, key: Key) -> H | None:
        """Return what the attempt holds."""
        return self._held.get(key)

    def unwanted(self, key: Key) -> bool:
        """Whether a held attempt was cancelled, or a newer one took its place."""
        return key in self._unwanted

    def over(self, key: Key) -> bool:
        """Whether the attempt ended or was cancelled here, perhaps before it came, or a newer one came first."""
        last = self._over.get(key[0])
        held = self._attempts.get(key[0])
        return (last is not None and last >= key[1]) or (held is not None and held[-1] > key[1])

    def older(self, key: Key) -> tuple[int, ...]:
        """Name the held attempts whose place this one takes."""
        held = self._attempts.get(key[0])
        return () if held is None else tuple(attempt for attempt in held if attempt < key[1])

    def hold(self, key: Key, held: H) -> None:
        """Hold an attempt; older ones of its request become unwanted."""
        self._held[key] = held
        others = self._attempts.get(key[0])
        if others is None:
            self._attempts[key[0]] = (key[1],)
            return
        self._unwanted.update((key[0], attempt) for attempt in others if attempt < key[1])
        self._attempts[key[0]] = tuple(sorted({*others, key[1]}))

    def drop(self, key: Key, *, over: bool = True) -> H | None:
        """Hold the attempt no longer, and remember that it is over; None: it was not held.

        Not `over`: it never began, and may come again.
        """
        held = self._held.pop(key, None)
        if held is None:
            return None
        attempts = self._attempts.pop(key[0])
        if len(attempts) > 1:
            self._attempts[key[0]] = tuple(attempt for attempt in attempts if attempt != key[1])
        if over or key in self._unwanted:
            self._close(key)
        self._unwanted.discard(key)
        return held

    def cancel(self, key: Key) -> list[Key]:
        """Remember that attempts up to this one are over; name those still held."""
        self._close(key)
        held = [(key[0], attempt) for attempt in self._attempts.get(key[0], ()) if attempt <= key[1]]
        self._unwanted.update(held)
        return held

    def _close(self, key: Key) -> None:
        self._over.put(key[0], max(key[1], self._over.get(key[0]) or 0))
