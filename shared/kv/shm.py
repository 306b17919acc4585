"""KV buffers by shared memory: the receiver copies them out of the sender's arena, whose descriptor it was passed.

Owns the abstract unix socket, the passing of the descriptor and the checks on it. Nothing has a name in a file system,
so a killed process leaves nothing behind. Each end makes sure by the kernel's word that the other runs as the same
user. The receiver maps the memory for reading, once per connection; the seal against shrinking keeps the mapping from
faulting. It verifies the checksum of its own copy, so whatever the sender does meanwhile is noticed.
"""

import asyncio
import fcntl
import hashlib
import mmap
import os
import secrets
import socket
import stat
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from shared.kv.layout import chunk_ranges
from shared.kv.link import Link, PeerLeft
from shared.kv.memory import copy, digesting
from shared.kv.wire import ANSWER_BYTES, OPENING_BYTES, Answer, Kind, Opening, expect_go, parse_answer, refusal

TRANSPORT: Final = "shm"
_PREFIX: Final = "baton-kv-"
_BACKLOG: Final = 128
_UCRED: Final = struct.Struct("iII")  # pid, uid, gid
_MAX_NAME: Final = 100  # an abstract name has 107 bytes
_COPY_BYTES: Final = 512 << 10
"""Copied at once; still in the cache when it is hashed. Measured against `preadv`: 1.4 times as fast."""


@cache
def here() -> str:
    """Name the reach of our abstract sockets: this boot of this machine, this network namespace. Empty: none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return ""
    return hashlib.blake2b(f"{boot} {namespace}".encode(), digest_size=8).hexdigest()


def listen() -> socket.socket | None:
    """A listening abstract unix socket, or None where the platform has none."""
    if not here() or not hasattr(os, "memfd_create"):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"\0{_PREFIX}{here()}-{secrets.token_hex(8)}")
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


def address_of(listener: socket.socket) -> str:
    """The name senders reach the listener by."""
    name: bytes = listener.getsockname()
    return name[1:].decode("ascii")


def reachable(address: str) -> bool:
    """Whether the address is a receiver's on this host; connecting may still fail."""
    return (
        bool(here()) and address.startswith(f"{_PREFIX}{here()}-") and len(address) <= _MAX_NAME and address.isascii()
    )


async def connect(address: str, arena_fd: int, arena_bytes: int) -> Link:
    """A connection over which the receiver was handed our arena and said yes.

    Raises OSError, KvRefused or MalformedMessage. The caller bounds the time.
    """
    link = Link(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        await link.connect(f"\0{address}")
        check_user(link)
        link.say(Opening(Kind.HELLO, length=arena_bytes).pack(), (arena_fd,))
        expect_go(parse_answer(await link.read(ANSWER_BYTES)))
    except BaseException:
        link.close()
        raise
    return link


def check_user(link: Link) -> None:
    """Raise PermissionError unless the other end runs as our user: abstract sockets have no file permissions."""
    _, uid, _ = _UCRED.unpack(link.peer_credentials(_UCRED.size))
    if uid != os.geteuid():
        raise PermissionError(f"the other end of a KV socket runs as user {uid}, we as {os.geteuid()}")


class PeerMemory:
    """A sender's arena, mapped for reading for the length of the connection."""

    def __init__(self, fd: int, claimed_bytes: int) -> None:
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:  # a pipe, a file, a device: reading one could block for ever
            raise refusal(Answer.MEMORY, "the descriptor is no memfd") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not seals & fcntl.F_SEAL_SHRINK:
            raise refusal(Answer.MEMORY, "it is not sealed against shrinking")
        if not claimed_bytes or status.st_size != claimed_bytes:
            raise refusal(Answer.MEMORY, f"it has {status.st_size} bytes and claims {claimed_bytes}")
        self.size = status.st_size
        self._memory = mmap.mmap(fd, self.size, prot=mmap.PROT_READ)
        self._view = memoryview(self._memory)

    def covers(self, offset: int, nbytes: int) -> bool:
        """Whether the range lies inside."""
        return offset <= self.size and nbytes <= self.size - offset

    def copy(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> bytes:
        """In a thread: copy the payload into our own staging; the checksum of the copy."""
        with digesting(len(view)) as digest:
            for start, stop in chunk_ranges(len(view), _COPY_BYTES):
                still_wanted()
                with view[start:stop] as chunk, self._view[offset + start : offset + stop] as source:
                    copy(chunk, source)
                    digest.update(view[start:stop])
            return digest.digest()

    def close(self) -> None:
        """Let go of the sender's memory."""
        self._view.release()
        self._memory.close()


async def welcome(link: Link, limit_s: float) -> PeerMemory:
    """Receive a sender's arena at the start of a connection. Raises KvRefused, MalformedMessage or OSError."""
    check_user(link)
    data, fds = b"", []
    try:
        async with asyncio.timeout(limit_s):
            while len(data) < OPENING_BYTES:
                await link.readable()
                more, passed = link.read_with_fd(OPENING_BYTES - len(data))
                fds += passed
                if not more:
                    raise PeerLeft("the sender left before it had said hello")
                data += more
        opening = Opening.parse(data)
        if opening.kind is not Kind.HELLO or len(fds) != 1:
            raise refusal(Answer.MEMORY, f"{len(fds)} descriptors came with the hello")
        return PeerMemory(fds[0], opening.length)
    finally:
        for fd in fds:
            os.close(fd)
