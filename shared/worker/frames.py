"""Frames on their way to the gateways: drafted column by column, published one per gateway and step.

Owns the splitting of a frame that is too large for one message. Decides nothing about streams: whoever drafted a frame
hears that it could not be published, and ends the streams in it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from shared.bus import Bus
from shared.errors import BatonError, Code, LinkLost, TooLarge
from shared.messages import Epoch, Failed, Finished, Frame, HandedOff, Logprobs, Request, encode, encode_frame
from shared.subjects import Subjects

RETRY_S: Final = 0.02
"""Between looks at a connection that is away."""


class Draft:
    """One gateway's next frame."""

    __slots__ = ("attempts", "ended", "ids", "indexes", "logprobs", "streams", "texts")

    def __init__(self) -> None:
        self.streams: list[int] = []
        self.attempts: list[int] = []
        self.indexes: list[int] = []
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.ended: list[Finished | Failed] = []
        self.logprobs: list[Logprobs] = []

    def token(self, request: Request, index: int, token_id: int, text: str) -> None:
        """Add an entry."""
        self.streams.append(request.stream)
        self.attempts.append(request.attempt)
        self.indexes.append(index)
        self.ids.append(token_id)
        self.texts.append(text)

    def frame(self, instance: str, epoch: Epoch) -> Frame:
        """What is published."""
        return Frame(
            instance,
            epoch,
            self.streams,
            self.attempts,
            self.indexes,
            self.ids,
            self.texts,
            self.ended,
            self.logprobs,
        )


class FrameSender:
    """Publishes what a worker tells the gateways, as the instance and epoch it is.

    While NATS is away it waits, up to `patience_s`: streams pause and go on. A connection that is there but takes
    nothing is an error at once.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, instance: str, epoch: Callable[[], Epoch], patience_s: float
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._instance = instance
        self._epoch = epoch
        self._patience_s = patience_s

    async def send(self, gateway: str, draft: Draft) -> None:
        """Publish a draft, in order. Raises what the bus raises; a part of it may have gone out then."""
        await self._publish_frame(self._subjects.frames(gateway), draft.frame(self._instance, self._epoch()))

    async def end(self, gateway: str, *ended: Finished | Failed) -> None:
        """Publish endings alone."""
        frame = Frame(instance=self._instance, epoch=self._epoch(), ended=list(ended))
        await self._publish_frame(self._subjects.frames(gateway), frame)

    async def handed_off(self, request: Request, decode: str, epoch: Epoch) -> None:
        """Tell the gateway who owns the attempt now."""
        message = HandedOff(request.stream, request.request_id, request.attempt, decode, epoch)
        await self._publish(self._subjects.frames(request.gateway), encode(message))

    async def _publish_frame(self, subject: str, frame: Frame) -> None:
        try:
            await self._publish(subject, encode_frame(frame))
        except TooLarge:
            halves = split(frame)
            if halves is None:
                raise
            for half in halves:
                await self._publish_frame(subject, half)

    async def _publish(self, subject: str, data: bytes) -> None:
        try:
            await self._bus.publish(subject, data, traced=False)
        except LinkLost:
            await self._reconnected()
            await self._bus.publish(subject, data, traced=False)

    async def _reconnected(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                while not self._bus.connected and not self._bus.closed:  # noqa: ASYNC110  # the bus has no event for it
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            return  # the publish that follows says so


def failed(request: Request, error: BatonError) -> Failed:
    """The bad ending of an attempt."""
    return failure(request, error.code, str(error), retryable=error.retryable)


def failure(request: Request, code: Code, message: str, *, retryable: bool) -> Failed:
    """The bad ending of an attempt, in a sentence of bounded length."""
    return Failed(request.stream, request.attempt, code, message[:500], retryable)


def split(frame: Frame) -> tuple[Frame, Frame] | None:
    """Two frames that say together, in order, what one says; None when it says one thing only."""
    entries, endings = len(frame.ids), len(frame.ended)
    if entries + endings <= 1:
        return None
    cut = max(1, entries // 2) if entries else 0
    ends = 0 if entries else endings // 2
    first = Frame(
        frame.instance,
        frame.epoch,
        frame.streams[:cut],
        frame.attempts[:cut],
        frame.indexes[:cut],
        frame.ids[:cut],
        frame.texts[:cut],
        frame.ended[:ends],
        [logprobs for logprobs in frame.logprobs if logprobs.entry < cut],
    )
    second = Frame(
        frame.instance,
        frame.epoch,
        frame.streams[cut:],
        frame.attempts[cut:],
        frame.indexes[cut:],
        frame.ids[cut:],
        frame.texts[cut:],
        frame.ended[ends:],
        [Logprobs(one.entry - cut, one.token, one.top) for one in frame.logprobs if one.entry >= cut],
    )
    return first, second
