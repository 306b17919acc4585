"""What vLLM's processes and the worker tell each other: MessagePack over a ZMQ ipc socket in a private folder.

The worker binds a ROUTER; EngineCore and every rank connect a DEALER. Pure: the sockets are `hub`'s and `rank`'s. KV
bytes never go this way, they lie in the worker's arena.
"""

from typing import Final

import msgspec

MAX_NOTE_BYTES: Final = 1 << 22
"""Of a registration: some hundred bytes per tensor."""


class Part(msgspec.Struct, frozen=True):
    """What one rank has of one KV tensor. A whole tensor is the parts of all ranks of one pipeline stage."""

    name: str  # the layer's, and for one of several tensors of a layer its place: equal in all ranks that share it
    heads: int  # of the whole tensor; 1 where it has no heads to share out (MLA)
    first: int  # of the heads in this rank
    count: int
    slab_bytes: int  # of one head in one block


class Registered(msgspec.Struct, frozen=True, tag=True):
    """A rank has its KV tensors. Sent once; the rank waits for the Plan."""

    rank: int
    world: int  # ranks in all, tensor and pipeline parallel together
    stage: int  # pipeline stage: its layers come after those of lower stages
    blocks: int  # of the manager's, in this rank; the first is vLLM's own
    block_tokens: int
    parts: list[Part]  # in the order in which the layers are computed
    layout: str  # what else the meaning of the bytes depends on: dtype, backend, packing; part of the fingerprint


class Plan(msgspec.Struct, frozen=True, tag=True):
    """The worker's answer to all ranks, once every rank has registered."""

    arena: str  # a path that opens the worker's staging memory, for reading and writing
    arena_bytes: int
    before: dict[str, int]  # by a tensor's name: bytes per block of all tensors that lie before it in a buffer
    block_bytes: int = 0  # of one block over all tensors
    devices: str = ""  # how the paths begin at which ranks with a device arena listen; the rank's number follows


class Gathered(msgspec.Struct, frozen=True, tag=True):
    """All that this rank has of a prompt's KV lies in the arena. Once per transfer and rank."""

    rank: int
    transfer: str


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """This rank has taken what is its own out of the arena. Once per transfer and rank."""

    rank: int
    transfer: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """In place of Gathered or Loaded: it failed in this rank."""

    rank: int
    transfer: str
    why: str


class Skipped(msgspec.Struct, frozen=True, tag=True):
    """EngineCore found everything in its prefix cache: no rank will read this transfer's range."""

    transfer: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """EngineCore is done with a request, however it ended; once per request. `moves`: ranks read or write its range.

    Where they do, a Gathered, Loaded or Lost of each rank has come or will come.
    """

    transfer: str
    moves: bool


class Troubled(msgspec.Struct, frozen=True, tag=True):
    """The sampler failed with a sequence, for no fault of its; what ended it is no end of the text."""

    key: str  # of the sequence; empty: of all in the batch
    why: str


FromVllm = Registered | Gathered | Loaded | Lost | Skipped | Ended | Troubled

_from_vllm: msgspec.msgpack.Decoder[FromVllm] = msgspec.msgpack.Decoder(FromVllm)
_plan = msgspec.msgpack.Decoder(Plan)


class Transfer(msgspec.Struct, frozen=True):
    """The place of one buffer; goes into vLLM as a request's kv_transfer_params, with one of vLLM's customary keys."""

    transfer: str  # unique in the life of the engine
    offset: int  # in the arena
    tokens: int  # whose KV it is
    blocks: int  # that hold them
    device: bool = False  # it lies in the ranks' device arenas, at the same place

    def params(self, *, sends: bool) -> dict[str, str | int | bool]:
        """For vLLM: a prompt whose KV is to be sent, or one whose KV has come."""
        direction = "do_remote_decode" if sends else "do_remote_prefill"
        return {**msgspec.structs.asdict(self), direction: True}


def pack(note: FromVllm | Plan) -> bytes:
    """Its bytes."""
    return msgspec.msgpack.encode(note)


def parse(data: bytes) -> FromVllm:
    """From vLLM's side. Raises msgspec.MsgspecError."""
    return _from_vllm.decode(data)


def parse_plan(data: bytes) -> Plan:
    """From the worker. Raises msgspec.MsgspecError."""
    return _plan.decode(data)
