"""Every message Baton sends, with its limits and its bytes.

Bytes are MessagePack by `msgpack`; types are msgspec Structs, validated once where they enter a process.
Append only: new fields go last with a default, unknown fields are ignored, tags are never renamed or reused.
"""

from array import array
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgpack
import msgspec

from shared.errors import Code, MalformedMessage

VERSION: Final = 1
"""Of the internal protocol; carried in each instance's record, compared before an instance joins a group."""
MAX_TOKENS_BYTES: Final = 900_000
"""Largest token list in a message: 225,000 tokens. NATS carries 1 MB; the rest is for parameters and headers."""

T = TypeVar("T")

Epoch = tuple[int, int]
"""(boot, counter), compared as a pair. The boot number grows when Redis has forgotten the counter."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
TokenBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_TOKENS_BYTES)]


class Role(StrEnum):
    """What an instance does."""

    GATEWAY = "gateway"
    PREFILL = "prefill"
    DECODE = "decode"
    MONITOR = "monitor"
    STANDBY = "standby"


class State(StrEnum):
    """Where an instance is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Finish(StrEnum):
    """Why a request ended well, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a message."""


class Message(Value, frozen=True, tag_field="t"):
    """A thing said over NATS. The tag is its name on the wire."""


# ---- a request, as workers see it ------------------------------------------------------------------------------------


class Sampling(Value, frozen=True):
    """How the next token is drawn. The draw depends on (seed, choice, position) and the logits alone."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and generated tokens
    presence_penalty: float = 0.0  # over generated tokens
    frequency_penalty: float = 0.0  # over generated tokens
    logit_bias: dict[int, float] = {}
    seed: int = 0  # drawn by the gateway where the client gave none, so that each attempt draws alike
    choice: int = 0
    logprobs: int | None = None  # number of alternatives wanted beside the token's own; None: no logprobs


class Stopping(Value, frozen=True):
    """When a request ends."""

    max_tokens: Positive  # generated tokens in all, those of earlier attempts included
    min_tokens: Count = 0  # no end of sequence or stop token before so many
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False


class Request(Value, frozen=True):
    """One attempt at one request (one choice of it, where n > 1)."""

    request_id: Name
    attempt: Count  # raised by the gateway at each replay; receivers drop what is older
    gateway: Name  # the instance whose frames subject gets the tokens
    stream: Count  # that gateway's number for the stream; frames carry it instead of the id
    tokens: TokenBytes  # uint32, little endian: the prompt, then what was already generated
    prompt_tokens: Positive  # how many of `tokens` are the client's prompt
    sampling: Sampling
    stopping: Stopping
    deadline_ms: Count  # unix time by which the first token is due; past it nobody starts work
    expires_ms: Count  # unix time at which the request ends whatever its state

    @property
    def n_tokens(self) -> int:
        """Prompt and generated tokens."""
        return len(self.tokens) // 4

    @property
    def generated(self) -> int:
        """Tokens generated so far, by earlier attempts or by prefill."""
        return self.n_tokens - self.prompt_tokens


# ---- gateway, prefill and decode -------------------------------------------------------------------------------------


class PrefillRequest(Message, frozen=True, tag="prefill.request"):
    """gateway -> prefill, answered Accepted or Rejected at once. Compute the prompt's KV cache and hand it to decode."""

    request: Request


class Accepted(Message, frozen=True, tag="accepted"):
    """prefill -> gateway: a slot is held for this attempt until its KV cache has left."""

    request_id: Name
    attempt: Count
    instance: Name
    epoch: Epoch


class Rejected(Message, frozen=True, tag="rejected"):
    """worker -> asker: not here, not now. Costs nothing; ask the next candidate."""

    request_id: str
    attempt: Count
    instance: str
    code: Code
    message: str
    retryable: bool = True  # False: no other worker will take it either


class KvReady(Message, frozen=True, tag="kv.ready"):
    """prefill -> decode, answered KvGrant or Rejected. `request.tokens` ends with the tokens prefill has sampled."""

    request: Request
    prefill: Name
    epoch: Epoch
    fingerprint: Name  # of the KV layout and the model; unequal is refused
    kv_tokens: Count  # positions whose keys and values the buffer holds, from 0
    kv_bytes: Positive
    host: str = ""  # whose shared memory the sender's buffer lies in; see shared/kv
    cached_tokens: Count = 0  # of the prompt, found in prefill's prefix cache; for usage


class KvReadyEvent(Message, frozen=True, tag="kv.event"):
    """prefill -> whoever watches: a prompt's KV cache is complete. Holds no token."""

    request_id: Name
    attempt: Count
    prefill: Name
    fingerprint: Name
    kv_tokens: Count
    kv_bytes: Positive


class Endpoint(Value, frozen=True):
    """Where a KV buffer may be pushed."""

    transport: Name  # tcp | shm
    address: Name  # host:port, or the name of an abstract unix socket


class KvGrant(Message, frozen=True, tag="kv.grant"):
    """decode -> prefill: room is reserved; push to the first endpoint you can reach, once, before the deadline."""

    request_id: Name
    attempt: Count
    instance: Name
    epoch: Epoch
    ticket: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    endpoints: list[Endpoint]
    deadline_ms: Count


class HandedOff(Message, frozen=True, tag="handed_off"):
    """prefill -> gateway, on the frames subject: `decode` has the whole KV cache and now owns the attempt."""

    stream: Count
    request_id: Name
    attempt: Count
    decode: Name
    epoch: Epoch


class Cancel(Message, frozen=True, tag="cancel"):
    """gateway -> every worker of the scenario: drop the attempts of this request up to and including `attempt`."""

    request_id: Name
    attempt: Count


# ---- the token path: one Frame per step and gateway ------------------------------------------------------------------


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
        lengths = {len(self.streams), len(self.attempts), len(self.indexes), len(self.ids), len(self.texts)}
        if len(lengths) != 1:
            raise ValueError("columns of a frame differ in length")


# ---- the fleet -------------------------------------------------------------------------------------------------------


class Status(Message, frozen=True, tag="status"):
    """instance -> everyone, at each heartbeat and at each freed slot."""

    instance: Name
    epoch: Epoch
    role: Role
    state: State
    scenario: str = ""
    group: str = ""
    slots: Count = 0  # requests it can hold
    free: Count = 0  # of them free now; the instance's own answer to an offer decides
    steps: Count = 0  # engine steps since start: a busy worker whose steps stand still is stuck
    busy: bool = False
    kv_free_bytes: Count = 0  # decode: room in its blocks
    number: Count = 0  # grows with each status; an older one that comes late is ignored


class Member(Value, frozen=True):
    """One instance's place in a group; a frame or offer with an older epoch is refused."""

    instance: Name
    epoch: Epoch


class Group(Value, frozen=True):
    """Prefills and decodes that may push to each other, any to any."""

    name: Name
    prefill: list[Member] = []
    decode: list[Member] = []


class ScenarioMap(Message, frozen=True, tag="map"):
    """monitor -> everyone; also in Redis. The whole truth about one scenario's members; higher version wins."""

    scenario: Name
    version: Count
    epoch: Epoch  # of the leading monitor: an older leader's map is refused
    groups: list[Group] = []


class AssignRole(Message, frozen=True, tag="assign"):
    """monitor -> standby, answered Done or Rejected: become this role, joining that group."""

    role: Role
    scenario: Name
    group: Name


class Drain(Message, frozen=True, tag="drain"):
    """monitor or operator -> instance, answered Done when it has begun: finish what you hold, then stop."""

    seconds: float


class Done(Message, frozen=True, tag="done"):
    """instance -> asker: understood and begun."""

    instance: Name


class Pulse(Message, frozen=True, tag="pulse"):
    """leading monitor -> everyone: Redis confirms my lease, so whoever cannot confirm its own is cut off alone."""

    instance: Name
    epoch: Epoch


class InstanceRecord(Value, frozen=True):
    """What Redis holds of an instance under `baton:instance:<id>`; what `baton status` shows."""

    id: Name
    role: Role
    state: State
    epoch: Epoch
    scenario: str = ""
    group: str = ""
    pid: int = 0
    host: str = ""
    slots: Count = 0
    load: Count = 0  # slots in use
    health_url: str = ""
    version: int = VERSION
    reason: str = ""  # why it failed or stopped


AnyMessage = (
    PrefillRequest | Accepted | Rejected | KvReady | KvReadyEvent | KvGrant | HandedOff | Cancel | Frame | Finished
    | Failed | Status | ScenarioMap | AssignRole | Drain | Done | Pulse
)  # fmt: skip
ToPrefill = PrefillRequest
ToDecode = KvReady | Cancel  # a Cancel is answered Done: the attempt is not, and will not be, decoded here
ToGateway = Frame | HandedOff
ToInstance = AssignRole | Drain


def encode(message: Value) -> bytes:
    """The bytes of a message or a record."""
    data: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return data


def decode(data: bytes, expected: type[T] | Any, what: str = "message") -> T:
    """The message in `data`, validated against `expected` (a type or a union). Raises MalformedMessage."""
    try:
        plain = _unpacked(data)
        message: T = msgspec.convert(plain, type=expected, builtin_types=(bytes,))
    except (ValueError, RecursionError, OverflowError) as error:  # what both libraries raise on bad input
        raise MalformedMessage(what, len(data), str(error)) from error
    return message


def _unpacked(data: bytes) -> object:
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except TypeError as error:  # a list or a map as a map's key
        raise ValueError(str(error)) from error


def pack_tokens(tokens: list[int]) -> bytes:
    """Token ids as little-endian uint32 bytes."""
    return array("I", tokens).tobytes()


def unpack_tokens(data: bytes) -> list[int]:
    """Token ids from little-endian uint32 bytes. Raises MalformedMessage on a length that is no multiple of four."""
    if len(data) % 4:
        raise MalformedMessage("uint32 tokens", len(data))
    return array("I", data).tolist()
