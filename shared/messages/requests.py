"""A request as workers see it, and what gateway, prefill and decode say about it."""

from typing import Annotated, Final, Literal

import msgspec

from shared.errors import Code
from shared.messages.wire import Count, Epoch, Message, Name, Positive, TokenBytes, Value

MAX_MEMO_BYTES: Final = 32 * 1024
"""Of what a gateway notes with a request, to be read by the one that resumes its stream."""


class Constraint(Value, frozen=True):
    """A language that the generated text must belong to; each engine compiles it by itself."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str  # a JSON Schema as JSON, a regular expression, or a Lark grammar in llguidance's dialect


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
    constraint: Constraint | None = None  # tokens that would leave its language are never drawn


class Stopping(Value, frozen=True):
    """When a request ends."""

    max_tokens: Positive  # generated tokens in all, those of earlier attempts included
    min_tokens: Count = 0  # no end of sequence or stop token before so many
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    shown_token_ids: list[int] = []  # special tokens whose text is shown: the marks of tool calls


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
    memo: Annotated[bytes, msgspec.Meta(max_length=MAX_MEMO_BYTES)] = b""
    """What another gateway needs to go on with the stream; means nothing to workers. Empty: nobody will resume it."""
    tenant: str = ""  # whose stream it is: nobody else may resume it

    @property
    def n_tokens(self) -> int:
        """Prompt and generated tokens."""
        return len(self.tokens) // 4

    @property
    def generated(self) -> int:
        """Tokens generated so far, by earlier attempts or by prefill."""
        return self.n_tokens - self.prompt_tokens


class PrefillRequest(Message, frozen=True, tag="prefill.request"):
    """gateway -> prefill, answered Accepted or Rejected at once. Compute the prompt's KV and hand it to decode."""

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
    """prefill -> decode, answered KvGrant or Rejected. `request.tokens` ends with the tokens prefill has sampled.

    While the buffer is `growing` it has sampled none; then the push goes on until the first token follows the buffer.
    """

    request: Request
    prefill: Name
    epoch: Epoch
    fingerprint: Name  # of the KV layout and the model; unequal is refused
    kv_tokens: Count  # positions whose keys and values the buffer holds, from 0
    kv_bytes: Positive
    host: str = ""  # whose shared memory the sender's buffer lies in; see shared/kv
    cached_tokens: Count = 0  # of the prompt, found in prefill's prefix cache; for usage
    growing: bool = False  # the KV is still computed, and is pushed meanwhile


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

    transport: Name  # tcp | shm | mooncake | cuda_ipc
    address: Name  # host:port, or the name of an abstract unix socket
    connections: Positive = 1  # tcp: over how many at once one buffer may come


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
