"""Every message Baton sends.

Bytes are MessagePack by `msgpack`; types are msgspec Structs, validated once where they enter a process. `wire` holds
the base, the limits and the bytes; `requests`, `tokens`, `resume` and `fleet` the messages.
"""

from shared.messages.fleet import (
    AssignRole,
    Done,
    Drain,
    Group,
    InstanceRecord,
    Member,
    Pulse,
    Reload,
    Reloaded,
    Role,
    ScenarioMap,
    State,
    Status,
)
from shared.messages.requests import (
    MAX_MEMO_BYTES,
    Accepted,
    Cancel,
    Constraint,
    Endpoint,
    HandedOff,
    KvGrant,
    KvReady,
    KvReadyEvent,
    PrefillRequest,
    Rejected,
    Request,
    Sampling,
    Stopping,
)
from shared.messages.resume import MOST_CLAIMED, Claim, Claimed, Claims
from shared.messages.tokens import Failed, Finish, Finished, Frame, Logprobs, TokenLogprob
from shared.messages.wire import (
    FIRST_VERSION,
    MAX_TOKENS_BYTES,
    VERSION,
    Count,
    Epoch,
    Message,
    Name,
    Positive,
    TokenBytes,
    Value,
    decode,
    encode,
    pack_tokens,
    unpack_tokens,
)

__all__ = [
    "FIRST_VERSION",
    "MAX_MEMO_BYTES",
    "MAX_TOKENS_BYTES",
    "MOST_CLAIMED",
    "VERSION",
    "Accepted",
    "AnyMessage",
    "AssignRole",
    "Cancel",
    "Claim",
    "Claimed",
    "Claims",
    "Constraint",
    "Count",
    "Done",
    "Drain",
    "Endpoint",
    "Epoch",
    "Failed",
    "Finish",
    "Finished",
    "Frame",
    "Group",
    "HandedOff",
    "InstanceRecord",
    "KvGrant",
    "KvReady",
    "KvReadyEvent",
    "Logprobs",
    "Member",
    "Message",
    "Name",
    "Positive",
    "PrefillRequest",
    "Pulse",
    "Rejected",
    "Reload",
    "Reloaded",
    "Request",
    "Role",
    "Sampling",
    "ScenarioMap",
    "State",
    "Status",
    "Stopping",
    "ToDecode",
    "ToGateway",
    "ToInstance",
    "ToPrefill",
    "TokenBytes",
    "TokenLogprob",
    "Value",
    "decode",
    "encode",
    "pack_tokens",
    "unpack_tokens",
]

AnyMessage = (
    PrefillRequest | Accepted | Rejected | KvReady | KvReadyEvent | KvGrant | HandedOff | Cancel | Frame | Finished
    | Failed | Status | ScenarioMap | AssignRole | Drain | Done | Pulse | Reload | Reloaded | Claim | Claimed | Claims
)  # fmt: skip
ToPrefill = PrefillRequest
ToDecode = KvReady | Cancel  # a Cancel is answered Done: the attempt is not, and will not be, decoded here
ToGateway = Frame | HandedOff
ToInstance = AssignRole | Drain | Reload
