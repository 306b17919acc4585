"""KV buffers from one process's device memory to another's on the same host, with no stop in host memory.

Owns the abstract unix socket and what is said on it before the first push: who the other end is, by the kernel's word,
and by which handle its device arena is opened, once per connection. From then on it goes as by shared memory: the
receiver copies, device to device, and verifies its own copy. Must not know any device by name: a `DeviceArena` opens
handles of its own kind and refuses others, and what cannot be reached this way goes another.
"""

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final

from shared.errors import MalformedMessage
from shared.kv import shm
from shared.kv.arena import Arena
from shared.kv.device_arena import MAX_HANDLE_BYTES, MAX_KIND_BYTES, DeviceArena, DeviceError, PeerDevice
from shared.kv.link import Link
from shared.kv.wire import ANSWER_BYTES, OPENING_BYTES, Answer, Kind, Opening, expect_go, parse_answer, refusal
from shared.tasks import unbroken

TRANSPORT: Final = "cuda_ipc"
_PREFIX: Final = "baton-device-"
_BACKLOG: Final = 128
_MAX_NAME: Final = 100  # an abstract name has 107 bytes
_RECORD: Final = struct.Struct(f"!4s{MAX_KIND_BYTES}sH{MAX_HANDLE_BYTES}s")
_MAGIC: Final = b"BtDv"
RECORD_BYTES: Final = _RECORD.size

log = logging.getLogger(__name__)


def listen(arena: Arena) -> socket.socket | None:
    """A listening socket, or None where buffers cannot be received on a device.

    A receiver's device memory must mirror its whole arena: a granted range lies anywhere in it.
    """
    if arena.device is None or not shm.here():
        return None
    if arena.device.size < arena.size:
        log.warning("staging on the device is smaller than in host memory: no KV buffer is received there")
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"\0{_PREFIX}{arena.device.kind}-{shm.here()}-{secrets.token_hex(8)}")
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


def reachable(address: str, device: DeviceArena) -> bool:
    """Whether the address is a receiver's on this host with a device like ours; connecting may still fail."""
    prefix = f"{_PREFIX}{device.kind}-{shm.here()}-"
    return bool(shm.here()) and address.startswith(prefix) and len(address) <= _MAX_NAME and address.isascii()


async def connect(address: str, device: DeviceArena) -> Link:
    """A connection over which the receiver was told how to open our device memory, and could.

    Raises OSError, KvRefused or MalformedMessage. The caller bounds the time.
    """
    link = Link(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        await link.connect(f"\0{address}")
        shm.check_user(link)
        link.say(Opening(Kind.HELLO, length=device.size).pack() + pack_record(device.kind, device.handle))
        expect_go(parse_answer(await link.read(ANSWER_BYTES)))
    except BaseException:
        link.close()
        raise
    return link


class PeerMemory:
    """A sender's device memory, read into our own for the length of the connection."""

    def __init__(self, arena: Arena, peer: PeerDevice, size: int) -> None:
        self._arena = arena
        self._peer = peer
        self._size = size

    def covers(self, offset: int, nbytes: int) -> bool:
        """Whether the range lies inside."""
        return offset <= self._size and nbytes <= self._size - offset

    def copy(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> bytes:
        """In a thread: copy the payload to where our device has the bytes of `view`; the checksum of the copy."""
        here = self._arena.offset_of(view)
        try:
            digest = self._peer.fetch(offset, here, len(view), still_wanted)
        except DeviceError as error:
            raise refusal(Answer.MEMORY, str(error)) from error
        self._arena.on_device.add(here)
        return digest

    def close(self) -> None:
        """Let go of the sender's memory."""
        self._peer.close()


async def welcome(link: Link, limit_s: float, *, arena: Arena) -> PeerMemory:
    """Open a sender's device memory at the start of a connection. Raises KvRefused, MalformedMessage or OSError."""
    shm.check_user(link)
    device = arena.device
    if device is None:
        raise refusal(Answer.MEMORY, "the device is gone")
    data = await link.read(OPENING_BYTES + RECORD_BYTES, first_s=limit_s, rest_s=limit_s)
    opening = Opening.parse(data[:OPENING_BYTES])
    if opening.kind is not Kind.HELLO:
        raise MalformedMessage("KV hello", len(data), opening.kind.name)
    kind, handle = parse_record(data[OPENING_BYTES:])
    if kind != device.kind:
        raise refusal(Answer.MEMORY, f"memory of {kind!r} cannot be opened by {device.kind!r}")
    try:
        peer = await _open(device, handle)
    except DeviceError as error:
        raise refusal(Answer.MEMORY, str(error)) from error
    return PeerMemory(arena, peer, opening.length)


async def _open(device: DeviceArena, handle: bytes) -> PeerDevice:
    opened: list[PeerDevice] = []
    try:
        await unbroken(asyncio.to_thread(lambda: opened.append(device.open(handle))))
    except asyncio.CancelledError:
        for peer in opened:  # for a connection that ended meanwhile
            peer.close()
        raise
    return opened[0]


def pack_record(kind: str, handle: bytes) -> bytes:
    """How a device arena is opened, in a fixed number of bytes."""
    return _RECORD.pack(_MAGIC, kind.encode("ascii"), len(handle), handle)


def parse_record(data: bytes) -> tuple[str, bytes]:
    """Kind and handle. Raises MalformedMessage."""
    magic, kind, length, handle = _RECORD.unpack(data)
    name: bytes = kind.rstrip(b"\0")
    if magic != _MAGIC or length > MAX_HANDLE_BYTES or not name.isascii():
        raise MalformedMessage("KV device record", len(data))
    return name.decode("ascii"), handle[:length]
