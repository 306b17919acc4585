"""Both ends of a hand-off whose arenas have device memory, and each end as a process of its own, to be killed."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from shared.config import KvSettings
from shared.kv.arena import Arena, Range
from shared.kv.cuda_ipc import TRANSPORT
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.tickets import Push
from shared.kv.wire import push_key
from shared.messages import KvGrant, decode, encode
from tests.fake_device import FakeDevice
from tests.kv_ends import MIB, Ends, descriptors

SIZE = 2 * MIB + 5


class DeviceEnds(Ends):
    """Ends with fake devices. What is staged lies on the sender's device, and nothing of it in its host memory."""

    @classmethod
    async def open(cls, transport: str, settings: KvSettings, arena_bytes: int = 16 * MIB) -> Self:
        arenas = Arena(arena_bytes), Arena(arena_bytes)
        for arena in arenas:
            arena.device = FakeDevice(arena.size)
        return cls(transport, settings, await Receiver.open(settings, arenas[1]), arenas)

    @property
    def devices(self) -> tuple[FakeDevice, FakeDevice]:
        """The sender's and the receiver's."""
        sending, receiving = self.sending.device, self.receiving.device
        assert isinstance(sending, FakeDevice)
        assert isinstance(receiving, FakeDevice)
        return sending, receiving

    def staged(self, nbytes: int, pattern: bytes = b"") -> Range:
        staging = self.sending.reserve(nbytes)
        staging.view[:] = bytes(nbytes)
        put(staging, pattern * nbytes if pattern else os.urandom(nbytes))
        return staging

    def granted_all(self, nbytes: int, milliseconds: int = 60_000) -> tuple[object, KvGrant]:
        """A grant with every endpoint of the receiver."""
        push, grant = self.granted(nbytes, milliseconds)
        every = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, self.receiver.endpoints, grant.deadline_ms)
        return push, every

    async def crosses(self, nbytes: int = 3 * MIB + 5) -> None:
        staging = self.staged(nbytes)
        push, grant = self.granted(nbytes)
        assert await self.sender.push(staging, grant) == self.transport
        received = await push.received()
        assert isinstance(received, Range)
        assert found(received) == found(staging)
        received.release()
        staging.release()

    async def close(self) -> None:
        devices = self.devices
        await super().close()
        for arena in (self.sending, self.receiving):
            assert not arena.on_device
        for device in devices:
            assert device.opened == 0
            device.close()


@asynccontextmanager
async def device_ends() -> AsyncIterator[DeviceEnds]:
    """For the time of one test, which must leave nothing open."""
    before = descriptors()
    ends = await DeviceEnds.open(TRANSPORT, KvSettings(max_transfers=4))
    yield ends
    await ends.close()
    assert descriptors() == before


def put(staging: Range, data: bytes) -> None:
    """Write the range's bytes on its device, as an engine does."""
    device = staging.arena.device
    assert isinstance(device, FakeDevice)
    device[staging.offset : staging.offset + len(data)] = data
    staging.arena.on_device.add(staging.offset)


def found(staging: Range) -> bytes:
    """The range's bytes, which must lie on its device."""
    device = staging.arena.device
    assert isinstance(device, FakeDevice)
    assert staging.offset in staging.arena.on_device
    return device[staging.offset : staging.offset + staging.nbytes]


async def arrived(push: object) -> Range:
    """The buffer of a push that has come."""
    assert isinstance(push, Push)
    received = await push.received()
    assert isinstance(received, Range)
    return received


async def _report(device: FakeDevice) -> None:
    await asyncio.to_thread(device.halfway.wait, 60)
    print("halfway", flush=True)  # noqa: T201  to the test that started us
    await asyncio.sleep(60)


async def _push(grant: KvGrant) -> None:
    arena = Arena(SIZE)
    arena.device = device = FakeDevice(arena.size)
    device.slow.set()
    staging = arena.reserve(SIZE)
    put(staging, bytes(SIZE))
    await asyncio.gather(Sender(arena, KvSettings()).push(staging, grant), _report(device))


async def _receive() -> None:
    arena = Arena(SIZE)
    arena.device = device = FakeDevice(arena.size)
    device.slow.set()
    receiver = await Receiver.open(KvSettings(), arena)
    deadline_ms = int(time.time() * 1000) + 60_000
    push = receiver.expect(push_key("request", 0), SIZE, deadline_ms)
    endpoints = [one for one in receiver.endpoints if one.transport == TRANSPORT]
    print(encode(KvGrant("request", 0, "child", (1, 1), push.ticket, endpoints, deadline_ms)).hex(), flush=True)  # noqa: T201
    await asyncio.gather(push.received(), _report(device))


if __name__ == "__main__":
    asyncio.run(_push(decode(bytes.fromhex(sys.argv[2]), KvGrant)) if sys.argv[1] == "push" else _receive())
