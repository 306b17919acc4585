"""One attempt on its way into the batch and through it, and whom it owes an ending.

Owns the question whose the attempt is: until the whole buffer is here it is prefill's, from then on it ends here, once.
"""

import asyncio

from msgspec import structs
from opentelemetry.context import Context

from services.decode.streams import Stream, Streams
from shared.errors import BatonError, Code, KvRefused
from shared.kv import Expected, Staging
from shared.messages import KvGrant, KvReady, Request, Value, pack_tokens
from shared.worker.running import Running


class Withdrawn(BatonError):
    """Raised in an attempt that prefill wants back: it goes to another decode, so the gateway hears nothing of us."""

    code = Code.CANCELLED


class Member(Running):
    """An attempt in the batch or on its way there."""

    def __init__(self, request: Request, answer: Value, context: Context, streams: Streams) -> None:
        super().__init__(request, answer)
        self._streams = streams
        self.context = context
        self.staging: Staging | None = None  # its KV buffer, until the engine has taken that in
        self.stream: Stream | None = None

    @property
    def growing(self) -> bool:
        """Whether its buffer comes while it is computed."""
        return False

    def stop(self, error: BatonError) -> None:
        """End the work; from this moment no token of it is published."""
        if self.stream is not None:
            self._streams.leave(self.stream)
        super().stop(error)


class Incoming(Member):
    """An attempt that was granted room. Its staging is here once the whole buffer is: from then on it is ours."""

    def __init__(self, offer: KvReady, grant: KvGrant, expected: Expected, context: Context, streams: Streams) -> None:
        super().__init__(offer.request, grant, context, streams)
        self.offer = offer
        self.expected = expected
        self.turn = asyncio.Event()  # a place in the batch is free for it

    @property
    def growing(self) -> bool:
        """Whether its buffer comes while it is computed."""
        return self.offer.growing and self.staging is None

    def sampled(self, token_id: int) -> None:
        """Hear the token that was sampled with the prompt; another request's offer has it in it."""
        grown = structs.replace(self.request, tokens=self.request.tokens + pack_tokens([token_id]))
        self.request = self.progress.request = grown

    def owes(self, error: BatonError) -> bool:
        """Whether the gateway must hear from us that the attempt ended with this error.

        Not when its stream has ended, nor while prefill has the attempt: it knows that the push was refused, or wants
        the attempt back. Where a push was cut off on our side, prefill may think us the owner: then it is told twice
        rather than never.
        """
        if isinstance(error, Withdrawn):
            return False
        if self.stream is not None:
            return not self.stream.ended
        return self.staging is not None or (self.expected.begun and not isinstance(error, KvRefused))
