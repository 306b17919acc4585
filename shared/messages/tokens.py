"""The token path: one Frame per engine step and gateway, and how an attempt ends."""

from enum import StrEnum
from typing import Any, Final

import msgpack
import msgspec

from shared.errors import Code
from shared.messages.wire import Count, Epoch, Message, Name, Value


class Finish(StrEnum):
    """Why a request ended well, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"  # said by gateways alone, of text that a worker ended with STOP
    CONTENT_FILTER = "content_filter"  # said by gateways alone


class TokenLogprob(Value, frozen=True, array_like=True):
    """A token with its log probability (natural log) under the unscaled, unpenalised model."""

    token_id: int
    logprob: float
    text: str
    raw: bytes  # the token's own bytes, which need not be whole characters


class Logprobs(Value, frozen=True, array_like=True):
    """Of one generated token: itself, then the likeliest alternatives, best first."""

    entry: Count  # which entry of the frame
    token: TokenLogprob
    top: list[TokenLogprob]


class Finished(Message, frozen=True, tag="finished"):
    """An attempt ended well; all its tokens came before. Ends the request."""

    stream: Count
    attempt: Count
    reason: Finish
    completion_tokens: Count  # generated in all, by every attempt
    prompt_tokens: Count
    cached_tokens: Count = 0
    stop_match: str | int | None = None  # the stop string or token that matched


class Failed(Message, frozen=True, tag="failed"):
    """An attempt ended badly. `retryable`: the gateway may start the next one."""

    stream: Count
    attempt: Count
    code: Code
    message: str
    retryable: bool


class Frame(Message, frozen=True, tag="frame"):
    """worker -> gateway: all new tokens of one step for that gateway's streams, as columns of equal length.

    Entry k is token `ids[k]` at `indexes[k]` (counted from 0 over generated tokens) of stream `streams[k]`; its text
    may be empty (held back by a stop string or an unfinished character) or longer than the token (held text released).
    """

    instance: Name
    epoch: Epoch
    streams: list[int] = []
    attempts: list[int] = []
    indexes: list[int] = []
    ids: list[int] = []
    texts: list[str] = []
    ended: list[Finished | Failed] = []
    logprobs: list[Logprobs] = []

    def __post_init__(self) -> None:
        if not len(self.streams) == len(self.attempts) == len(self.indexes) == len(self.ids) == len(self.texts):
            raise ValueError("columns of a frame differ in length")


_PACKER: Final = msgpack.Packer()
_LISTS: Final = ("streams", "attempts", "indexes", "ids", "texts")
_PARTS: Final = ("ended", "logprobs")


def encode_frame(frame: Frame) -> bytes:
    """The bytes that `encode` makes of a frame, without a copy of its columns. On the event loop's thread only."""
    fields: dict[str, Any] = {"t": "frame", "instance": frame.instance, "epoch": frame.epoch}
    for name in _LISTS:
        if column := getattr(frame, name):
            fields[name] = column
    for name in _PARTS:
        if parts := getattr(frame, name):
            fields[name] = msgspec.to_builtins(parts, builtin_types=(bytes,))
    data: bytes = _PACKER.pack(fields)
    return data
