"""Which attempts are nobody's: the gateway that reads them has been gone for longer than the grace.

Until then they run on, so that the gateway which resumes such a stream finds its tokens made. Counts seconds in which
this worker was awake and connected: while it hears nobody, it cannot say who is gone. Pure.
"""

from typing import Final

from shared.messages import Epoch, State, Status
from shared.policy.known import Key

_ENDED: Final = (State.STOPPED, State.FAILED)


class Orphans:
    """The attempts held here by the gateway that reads them."""

    def __init__(self, patience_s: float, grace_s: float) -> None:
        self._patience_s = patience_s  # silence that is nothing yet
        self._grace_s = grace_s
        self._held: dict[str, set[Key]] = {}  # by gateway
        self._silent_s: dict[str, float] = {}  # of each of those
        self._epochs: dict[str, Epoch] = {}  # as heard of those
        self._left: dict[Key, float] = {}  # of a former life of their gateway: seconds without one

    def __len__(self) -> int:
        """Attempts whose gateway is gone, as far as is known."""
        silent = sum(len(self._held[name]) for name, silent_s in self._silent_s.items() if silent_s > self._patience_s)
        return silent + len(self._left)

    def enter(self, key: Key, gateway: str) -> None:
        """Hold an attempt: its gateway has just spoken."""
        self._held.setdefault(gateway, set()).add(key)
        self._silent_s[gateway] = 0.0

    def exit(self, key: Key, gateway: str) -> None:
        """Hold an attempt no longer."""
        self._left.pop(key, None)
        held = self._held.get(gateway)
        if held is None:
            return
        held.discard(key)
        if not held:
            del self._held[gateway], self._silent_s[gateway]
            self._epochs.pop(gateway, None)

    def hear(self, status: Status) -> None:
        """A gateway said how it is. One that ended, or came back as another, reads nothing of before."""
        gateway = status.instance
        if gateway not in self._held:
            return
        known = self._epochs.get(gateway)
        if status.state in _ENDED or (known is not None and status.epoch > known):
            for key in self._held[gateway]:
                self._left.setdefault(key, self._patience_s)
        if known is None or status.epoch >= known:
            self._epochs[gateway] = status.epoch
            if status.state not in _ENDED:
                self._silent_s[gateway] = 0.0

    def sweep(self, elapsed_s: float) -> list[Key]:
        """Time has passed; name the attempts to give up. Each is named until it exits."""
        due: list[Key] = []
        for gateway, keys in self._held.items():
            self._silent_s[gateway] += elapsed_s
            if self._silent_s[gateway] > self._patience_s + self._grace_s:
                due += keys
        for key in self._left:
            self._left[key] += elapsed_s
            if self._left[key] > self._patience_s + self._grace_s:
                due.append(key)
        return sorted(set(due))
