"""What goes over a KV connection besides the payload: records of fixed size, so that no peer decides what we read.

    sender                                        receiver
    shm only, once: HELLO with the memfd  ->      (cuda_ipc: with a record of how to open the device's memory)
                                          <-      GO, or a refusal
    per push: PUSH                        ->
                                          <-      GO, or a refusal: the ticket is looked at before any payload moves
    payload (tcp), then its checksum      ->
                                          <-      DONE, or a refusal
    tcp, in parts: STRIPED instead of PUSH, and on each further connection, once GO has come on the first: STRIPE,
    each with a part of the payload and the checksum of that; DONE on the first means all of them
    per one-sided write: WRITE            ->
                                          <-      GO and the address to write to, or a refusal
    once the write is over: the word      ->
                                          <-      DONE, or a refusal

Pure. After a refusal the receiver closes the connection. Integers are big endian.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import xxhash

from shared.errors import KvRefused, MalformedMessage
from shared.messages import KvGrant

WIRE_VERSION: Final = 1
TICKET_BYTES: Final = 16

_MAGIC: Final = b"BtKV"
_OPENING: Final = struct.Struct("!4sHH16s16sQQ")
_ANSWER: Final = struct.Struct("!4sHH")
_ADDRESS: Final = struct.Struct("!Q")
_WORD: Final = struct.Struct("!4sHH16s")

OPENING_BYTES: Final = _OPENING.size
ANSWER_BYTES: Final = _ANSWER.size
ADDRESS_BYTES: Final = _ADDRESS.size
WORD_BYTES: Final = _WORD.size


class Kind(IntEnum):
    """What an opening opens."""

    HELLO = 1
    PUSH = 2
    WRITE = 3
    STRIPED = 4  # the first of several connections over which a payload comes in parts; `offset` is their number
    STRIPE = 5  # a further one; `offset` is the place of its part


class Answer(IntEnum):
    """What the receiver says. Numbers are never reused."""

    GO = 0
    DONE = 1
    TICKET = 16
    LENGTH = 17
    CHECKSUM = 18
    VERSION = 19
    MALFORMED = 20
    MEMORY = 21


_REFUSALS: Final = {
    Answer.TICKET: ("ticket", "the ticket is unknown, used, expired or another request's"),
    Answer.LENGTH: ("length", "the length is not the one that was granted"),
    Answer.CHECKSUM: ("checksum", "the bytes that arrived are not the bytes that were sent"),
    Answer.VERSION: ("version", "the peer speaks another version of the KV protocol"),
    Answer.MALFORMED: ("malformed", "the record is none of the KV protocol"),
    Answer.MEMORY: ("memory", "the sender's shared memory cannot be used"),
}


class Outcome(IntEnum):
    """How a one-sided write ended, by its sender's word. Numbers are never reused."""

    NEVER = 0  # it was not begun
    WRITTEN = 1  # all of it; the checksum is good
    UNWANTED = 2  # all of it, but the push had been given up before
    BROKEN = 3  # some of it, and more may come


class VersionDiffers(MalformedMessage):
    """Raised when a record is ours, but of another version."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The record that a sender begins with."""

    kind: Kind
    ticket: bytes = bytes(TICKET_BYTES)
    request: bytes = bytes(16)  # whose buffer this is; see `request_mark`
    length: int = 0  # of the payload; of a HELLO, the size of the shared memory
    offset: int = 0  # shm: where in the shared memory the payload lies; of parts, see Kind

    def pack(self) -> bytes:
        """Its bytes."""
        return _OPENING.pack(_MAGIC, WIRE_VERSION, self.kind, self.ticket, self.request, self.length, self.offset)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From bytes. Raises VersionDiffers or MalformedMessage."""
        magic, version, kind, ticket, request, length, offset = _OPENING.unpack(data)
        if magic != _MAGIC:
            raise MalformedMessage("KV opening", len(data))
        if version != WIRE_VERSION:
            raise VersionDiffers("KV opening", len(data), f"version {version}, ours is {WIRE_VERSION}")
        try:
            return cls(Kind(kind), ticket, request, length, offset)
        except ValueError as error:
            raise MalformedMessage("KV opening", len(data), f"kind {kind}") from error


def pack_answer(answer: Answer) -> bytes:
    """Its bytes."""
    return _ANSWER.pack(_MAGIC, WIRE_VERSION, answer)


def parse_answer(data: bytes) -> Answer:
    """From bytes; VERSION for whatever another version answered. Raises MalformedMessage."""
    magic, version, number = _ANSWER.unpack(data)
    if magic != _MAGIC:
        raise MalformedMessage("KV answer", len(data))
    if version != WIRE_VERSION:
        return Answer.VERSION
    try:
        return Answer(number)
    except ValueError as error:
        raise MalformedMessage("KV answer", len(data), f"number {number}") from error


def pack_address(address: int) -> bytes:
    """Where in the receiver's memory a write is to go; follows GO."""
    return _ADDRESS.pack(address)


def parse_address(data: bytes) -> int:
    """From bytes."""
    (address,) = _ADDRESS.unpack(data)
    return int(address)


def pack_word(outcome: Outcome, checksum: bytes = bytes(16)) -> bytes:
    """What the sender of a one-sided write says when it is over."""
    return _WORD.pack(_MAGIC, WIRE_VERSION, outcome, checksum)


def parse_word(data: bytes) -> tuple[Outcome, bytes]:
    """From bytes: the outcome, and the checksum of what was written. Raises MalformedMessage."""
    magic, version, number, checksum = _WORD.unpack(data)
    if magic != _MAGIC or version != WIRE_VERSION:
        raise MalformedMessage("word on a KV write", len(data))
    try:
        return Outcome(number), checksum
    except ValueError as error:
        raise MalformedMessage("word on a KV write", len(data), f"outcome {number}") from error


def refusal(answer: Answer, detail: str = "") -> KvRefused:
    """The error that an answer stands for."""
    reason, sentence = _REFUSALS.get(answer, ("malformed", f"unexpected answer {answer.name}"))
    return KvRefused(reason, f"KV push refused: {sentence}{detail and ': ' + detail}")


def expect_go(answer: Answer) -> None:
    """Raise KvRefused unless the receiver said yes."""
    if answer is not Answer.GO:
        raise refusal(answer)


def answer_for(error: KvRefused | MalformedMessage) -> Answer:
    """How the receiver puts an error into an answer."""
    if isinstance(error, VersionDiffers):
        return Answer.VERSION
    if isinstance(error, MalformedMessage):
        return Answer.MALFORMED
    return next((answer for answer, (reason, _) in _REFUSALS.items() if reason == error.reason), Answer.MALFORMED)


def push_key(request_id: str, attempt: int) -> str:
    """The name both ends know a push by; an engine's key for the attempt."""
    return f"{request_id}#{attempt}"


def request_mark(key: str) -> bytes:
    """Sixteen bytes that tie an opening to its attempt, so that a mixed-up ticket is noticed before a byte moves."""
    return xxhash.xxh3_128_digest(key.encode())


def opening_for(grant: KvGrant, length: int, offset: int = 0, kind: Kind = Kind.PUSH) -> Opening:
    """How a sender begins the push that a grant allows."""
    mark = request_mark(push_key(grant.request_id, grant.attempt))
    return Opening(kind, grant.ticket, mark, length, offset)
