"""Both ends of a KV hand-off in one process, and peers that talk the protocol by hand in order to break it."""

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Self

import pytest

from shared.config import KvSettings
from shared.errors import KvRefused
from shared.kv import mooncake, shm, tcp
from shared.kv.arena import Arena, Range
from shared.kv.link import Link
from shared.kv.mooncake import Place
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.tickets import Push
from shared.kv.wire import (
    ANSWER_BYTES,
    OPENING_BYTES,
    Answer,
    Kind,
    Opening,
    opening_for,
    pack_answer,
    parse_answer,
    push_key,
)
from shared.messages import Endpoint, KvGrant
from tests.waiting import until

MIB = 1 << 20
LONG_MS = 60_000
"""A deadline that no test may reach."""


def descriptors() -> dict[str, str]:
    """What this process has open, by number. Tracebacks keep views, and with them memory, until they are collected."""
    gc.collect()
    return {fd.name: str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}


def in_ms(milliseconds: int) -> int:
    """Unix time, so far from now."""
    return int(time.time() * 1000) + milliseconds


class Ends:
    """A sender and a receiver with an arena each, over one transport."""

    def __init__(self, transport: str, settings: KvSettings, receiver: Receiver, arenas: tuple[Arena, Arena]) -> None:
        self.transport = transport
        self.settings = settings
        self.receiver = receiver
        self.sending, self.receiving = arenas
        self.sender = Sender(self.sending, settings)
        self.endpoint = next(one for one in receiver.endpoints if one.transport == transport)
        self._granted = 0

    @classmethod
    async def open(cls, transport: str, settings: KvSettings, arena_bytes: int = 16 * MIB) -> Self:
        arenas = Arena(arena_bytes), Arena(arena_bytes)
        return cls(transport, settings, await Receiver.open(settings, arenas[1]), arenas)

    def staged(self, nbytes: int, pattern: bytes = b"") -> Range:
        """A buffer at the sender, filled with one byte over and over, or with random ones."""
        staging = self.sending.reserve(nbytes)
        staging.view[:] = pattern * nbytes if pattern else os.urandom(nbytes)
        return staging

    def granted(self, nbytes: int, milliseconds: int = LONG_MS) -> tuple[Push, KvGrant]:
        """A grant for one push over this transport alone."""
        self._granted += 1
        request, deadline_ms = f"request-{self._granted}", in_ms(milliseconds)
        push = self.receiver.expect(push_key(request, 0), nbytes, deadline_ms)
        assert isinstance(push, Push)
        return push, KvGrant(request, 0, "decode-1", (1, 1), push.ticket, [self.endpoint], deadline_ms)

    async def crosses(self, nbytes: int = 3 * MIB + 5) -> None:
        """Show that the receiver is well: an ordinary push arrives, whole."""
        staging = self.staged(nbytes)
        push, grant = self.granted(nbytes)
        assert await self.sender.push(staging, grant) == self.transport
        received = await push.received()
        assert bytes(received.view) == bytes(staging.view)
        received.release()
        staging.release()

    async def close(self) -> None:
        await self.sender.close()
        await self.receiver.close()
        for arena in (self.sending, self.receiving):
            await until(lambda arena=arena: arena.in_use == 0, "all staging is released")  # type: ignore[misc]
            arena.close()


class HandSender:
    """A peer that says what it likes to a receiver."""

    def __init__(self, link: Link, ends: Ends) -> None:
        self.link = link
        self.ends = ends

    @classmethod
    async def connect(cls, ends: Ends) -> Self:
        if ends.transport == "tcp":
            return cls(await tcp.connect(ends.endpoint.address), ends)
        if ends.transport == mooncake.TRANSPORT:
            place = Place.parse(ends.endpoint.address)
            assert place is not None
            return cls(await tcp.connect(place.control), ends)
        assert ends.sending.fd is not None
        return cls(await shm.connect(ends.endpoint.address, ends.sending.fd, ends.sending.size), ends)

    async def send(self, data: bytes | memoryview) -> None:
        await asyncio.get_running_loop().sock_sendall(self.link._sock, data)

    async def answer(self) -> Answer | None:
        """What the receiver says; None when it closes."""
        try:
            return parse_answer(await self.link.read(ANSWER_BYTES, first_s=20, rest_s=20))
        except ConnectionError:
            return None

    async def open(self, grant: KvGrant, staging: Range, **changed: object) -> Answer | None:
        """Begin a push, and the answer."""
        offset = staging.offset if self.ends.transport == "shm" else 0
        kind = Kind.WRITE if self.ends.transport == mooncake.TRANSPORT else Kind.PUSH
        opening = opening_for(grant, staging.nbytes, offset, kind)
        fields = {name: changed.get(name, getattr(opening, name)) for name in Opening.__slots__}
        await self.send(Opening(**fields).pack())  # type: ignore[arg-type]
        return await self.answer()

    async def payload(self, staging: Range, upto: int | None = None) -> None:
        """The bytes; by shared memory there are none to send."""
        if self.ends.transport == "tcp":
            await self.send(staging.view[:upto])

    async def finish(self, digest: bytes) -> Answer | None:
        """The checksum, and the answer."""
        await self.send(digest)
        return await self.answer()

    def close(self) -> None:
        self.link.close()


class HandReceiver:
    """A peer that says what it likes to one sender: listens, welcomes, answers as told, and does no more."""

    def __init__(self, transport: str) -> None:
        if transport == "tcp":
            self._listener = tcp.listen("127.0.0.1", 0)
            self.endpoint = Endpoint("tcp", tcp.address_of(self._listener))
        else:
            local = shm.listen()
            assert local is not None
            self._listener = local
            self.endpoint = Endpoint("shm", shm.address_of(local))
        self.began = asyncio.Event()
        self._link: Link | None = None
        self._memory: shm.PeerMemory | None = None

    def grant(self, milliseconds: int = LONG_MS) -> KvGrant:
        return KvGrant("request", 0, "decode-1", (1, 1), bytes(16), [self.endpoint], in_ms(milliseconds))

    async def play(self, *answers: bytes) -> None:
        """Take one connection and one opening, say the answers, then wait in silence until cancelled."""
        sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._link = Link(sock)
        if self.endpoint.transport == "shm":
            self._memory = await shm.welcome(self._link, 20)
            self._link.say(pack_answer(Answer.GO))
        await self._link.read(OPENING_BYTES, first_s=20, rest_s=20)
        for answer in answers:
            self._link.say(answer)
        self.began.set()
        await asyncio.Event().wait()

    def hang_up(self) -> None:
        if self._memory is not None:
            self._memory.close()
        if self._link is not None:
            self._link.close()
        self._listener.close()


async def refused(push: Push, reason: str) -> None:
    """The push must end so."""
    with pytest.raises(KvRefused) as raised:
        await push.received()
    assert raised.value.reason == reason
