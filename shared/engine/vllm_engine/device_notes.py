"""What the worker asks of the process that has the device, and what that answers: MessagePack on a unix stream socket.

Each record is preceded by its length. Pure but for the socket that it is handed.
"""

import socket
import struct
from typing import Final

import msgspec

MAX_RECORD_BYTES: Final = 1 << 16
_LENGTH: Final = struct.Struct("!I")


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Take so many bytes of the device's memory, unless it is done, and say what there is."""

    nbytes: int


class Sum(msgspec.Struct, frozen=True, tag=True):
    """The checksum of a range."""

    offset: int
    nbytes: int


class ToHost(msgspec.Struct, frozen=True, tag=True):
    """Copy what this rank has of a range to the same place of the arena in host memory."""

    offset: int
    nbytes: int


class Open(msgspec.Struct, frozen=True, tag=True):
    """Open a peer's memory; the answer's `peer` names it from then on, until Close."""

    handle: bytes


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Copy from a peer's memory; the checksum of the copy."""

    peer: int
    source: int
    offset: int
    nbytes: int


class Close(msgspec.Struct, frozen=True, tag=True):
    """Let go of a peer's memory."""

    peer: int


class Answer(msgspec.Struct, frozen=True, tag=True):
    """To every command. `why` is empty where it was done."""

    why: str = ""
    digest: bytes = b""  # of Sum and Fetch
    peer: int = 0  # of Open
    kind: str = ""  # of Begin, with the two below
    handle: bytes = b""
    size: int = 0


Command = Begin | Sum | ToHost | Open | Fetch | Close

_command: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def say(sock: socket.socket, record: Command | Answer) -> None:
    """Send one. Raises OSError."""
    data = msgspec.msgpack.encode(record)
    sock.sendall(_LENGTH.pack(len(data)) + data)


def hear_command(sock: socket.socket) -> Command:
    """Raises OSError; ValueError for what is none."""
    return _command.decode(_record(sock))


def hear_answer(sock: socket.socket) -> Answer:
    """Raises OSError; ValueError for what is none."""
    return _answer.decode(_record(sock))


def _record(sock: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > MAX_RECORD_BYTES:
        raise ValueError(f"a record of {length} bytes")
    return _exactly(sock, length)


def _exactly(sock: socket.socket, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        more = sock.recv(nbytes - len(data))
        if not more:
            raise ConnectionError("the other end has gone")
        data += more
    return data
