"""A buffer that is pushed while its prompt is still computed: how much of it is final, and what follows it.

Owns the growth, said on the event loop and waited for in the thread that pushes. The last part, the tail, tells the
receiver what was not known when it made room: the first token. It goes under the same checksum, so that whoever has the
buffer has the token too. Must not know sockets.
"""

import struct
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Self

from shared.errors import MalformedMessage
from shared.kv import Staging

_TAIL: Final = struct.Struct("!4sII")
_MAGIC: Final = b"BtGr"
TAIL_BYTES: Final = _TAIL.size
LOOK_S: Final = 0.05
"""How long the thread waits before it looks whether its connection was cut."""


class GrowthStopped(ConnectionError):
    """Raised in the pushing thread when the prompt will not be completed, or goes another way."""


class Tail(NamedTuple):
    """What follows the KV."""

    token_id: int  # sampled with the prompt
    cached_tokens: int  # of the prompt, found in prefill's prefix cache

    def pack(self) -> bytes:
        """Its bytes."""
        return _TAIL.pack(_MAGIC, self.token_id, self.cached_tokens)

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Self:
        """From bytes. Raises MalformedMessage."""
        if len(data) != TAIL_BYTES:
            raise MalformedMessage("tail of a KV buffer", len(data))
        magic, token_id, cached_tokens = _TAIL.unpack(data)
        if magic != _MAGIC:
            raise MalformedMessage("tail of a KV buffer", len(data))
        return cls(token_id, cached_tokens)


class Growing:
    """One buffer's growth. `grow`, `complete` and `stop` belong to the loop, `wait` and `wait_tail` to one thread."""

    def __init__(self, staging: Staging) -> None:
        self.view = staging.view
        self.nbytes = len(self.view) + TAIL_BYTES  # of the whole payload
        self.completed_at: float | None = None  # monotonic
        self.early = 0  # bytes that had left when it was complete
        self._changed = threading.Condition()
        self._final = 0
        self._sent = 0
        self._tail: bytes | None = None
        self._stopped = False

    @property
    def final(self) -> int:
        """Bytes of the buffer that will not change."""
        return self._final

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before it was complete: then nobody can have received it."""
        return self._stopped and self._tail is None

    def grow(self, nbytes: int) -> None:
        """So many leading bytes are final."""
        with self._changed:
            self._final = max(self._final, min(nbytes, len(self.view)))
            self._changed.notify_all()

    def complete(self, tail: Tail) -> None:
        """All of the buffer is final, and this follows it."""
        with self._changed:
            self._final = len(self.view)
            self._tail = tail.pack()
            self.completed_at = time.monotonic()
            self.early = self._sent
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more will come. Idempotent; once it is complete, it does nothing."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, start: int, still_wanted: Callable[[], None]) -> int:
        """Return how many bytes are final, once these are more than `start`, which have left.

        Raises GrowthStopped, or what `still_wanted` raises.
        """
        self._sent = start
        self._until(lambda: self._final > start, still_wanted)
        return self._final

    def wait_tail(self, still_wanted: Callable[[], None]) -> bytes:
        """Return the tail, once it is known. Raises as `wait` does."""
        self._until(lambda: self._tail is not None, still_wanted)
        if self._tail is None:
            raise AssertionError("it is known")
        return self._tail

    def _until(self, reached: Callable[[], bool], still_wanted: Callable[[], None]) -> None:
        with self._changed:
            while not reached():
                if self._stopped:
                    raise GrowthStopped("the prompt was not completed")
                self._changed.wait(LOOK_S)
                still_wanted()
