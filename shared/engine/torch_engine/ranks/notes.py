"""What a leader and its followers tell each other: MessagePack, in the order in which it is to be done.

Pure; `line` sends them. KV bytes never go this way, they lie in the worker's arena. Tokens and blocks of a sequence go
once: see `plans`.
"""

from typing import Any, Final

import msgspec

MAX_NOTE_BYTES: Final = 1 << 26
"""Of a step that begins with long prompts: five bytes per token at most."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first note to a follower: what it is part of."""

    rank: int
    world: int
    directory: str
    options: dict[str, Any]  # EngineOptions, with this rank's device
    dtype: str
    blocks: int
    arena_fd: int  # which the follower inherits
    arena_bytes: int


class Join(msgspec.Struct, frozen=True, tag=True):
    """All are ready: meet at this port of the loopback interface."""

    port: int


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A sequence of a step: by its number, with what has come to it since the step before, or all when it is new."""

    number: int
    computed: int
    tokens: list[int]
    blocks: list[int]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A chunk of a prompt."""

    run: Known
    start: int
    stop: int


class Forward(msgspec.Struct, frozen=True, tag=True):
    """Compute a step."""

    decodes: list[Known]
    chunks: list[Piece]
    fresh: list[int]


class TakeIn(msgspec.Struct, frozen=True, tag=True):
    """Scatter your heads of a buffer of so many tokens into the blocks; answer Done."""

    blocks: list[int]
    tokens: int
    offset: int  # in the arena
    nbytes: int


class Export(msgspec.Struct, frozen=True, tag=True):
    """Gather your heads of the blocks into a buffer; answer Done."""

    blocks: list[int]
    offset: int
    nbytes: int


class Close(msgspec.Struct, frozen=True, tag=True):
    """The last note."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """A follower has loaded its part, joined, or moved a buffer: whatever it was told last."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A follower ends, and why."""

    why: str


ToFollower = Begin | Join | Forward | TakeIn | Export | Close
ToLeader = Done | Failed

_to_follower: msgspec.msgpack.Decoder[ToFollower] = msgspec.msgpack.Decoder(ToFollower)
_to_leader: msgspec.msgpack.Decoder[ToLeader] = msgspec.msgpack.Decoder(ToLeader)


def pack(note: ToFollower | ToLeader) -> bytes:
    """Its bytes."""
    return msgspec.msgpack.encode(note)


def for_follower(data: bytes) -> ToFollower:
    """From the leader. Raises msgspec.MsgspecError."""
    return _to_follower.decode(data)


def for_leader(data: bytes) -> ToLeader:
    """From a follower. Raises msgspec.MsgspecError."""
    return _to_leader.decode(data)
