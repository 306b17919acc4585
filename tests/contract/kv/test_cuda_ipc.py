"""KV from one process's device memory to another's: what crosses, and what goes another way instead.

On memory that stands in for a device's; tests/gpu has the same on real ones.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from shared.config import KvSettings
from shared.errors import KvRefused, WorkerLost
from shared.kv.arena import Arena
from shared.kv.receiver import Receiver
from shared.kv.tickets import Push
from shared.messages import Endpoint, KvGrant
from tests.device_ends import SIZE, DeviceEnds, arrived, device_ends, found
from tests.fake_device import FakeDevice
from tests.kv_ends import MIB, refused
from tests.waiting import until


@pytest.fixture
async def ends() -> AsyncIterator[DeviceEnds]:
    async with device_ends() as made:
        yield made


@pytest.mark.parametrize("nbytes", [1, 4096, SIZE, 16 * MIB])
async def test_a_buffer_crosses_and_host_memory_never_has_it(ends: DeviceEnds, nbytes: int) -> None:
    staging = ends.staged(nbytes)
    push, grant = ends.granted_all(nbytes)
    assert await ends.sender.push(staging, grant) == "cuda_ipc"
    received = await arrived(push)
    assert found(received) == found(staging)
    for one in (staging, received):
        assert not any(one.view)
    assert [device.to_hosts for device in ends.devices] == [0, 0]
    received.release()
    staging.release()


async def test_a_connection_opens_the_senders_memory_once_and_lets_go_of_it(ends: DeviceEnds) -> None:
    for _ in range(5):
        await ends.crosses()
    assert (ends.devices[1].opens, ends.devices[1].opened) == (1, 1)
    await ends.sender.close()
    await until(lambda: ends.devices[1].opened == 0, "the sender's memory is closed")


async def test_buffers_cross_at_once_each_to_its_own_place(ends: DeviceEnds) -> None:
    stagings = [ends.staged(MIB + place) for place in range(4)]
    pushes = [ends.granted_all(staging.nbytes) for staging in stagings]
    sent = [ends.sender.push(one, grant) for one, (_, grant) in zip(stagings, pushes, strict=True)]
    assert await asyncio.gather(*sent) == ["cuda_ipc"] * 4
    for staging, (push, _) in zip(stagings, pushes, strict=True):
        received = await arrived(push)
        assert found(received) == found(staging)
        received.release()
        staging.release()


async def test_a_range_that_was_released_is_no_longer_on_the_device(ends: DeviceEnds) -> None:
    await ends.crosses()
    assert not ends.sending.on_device
    assert not ends.receiving.on_device
    staging = ends.sending.reserve(SIZE)
    staging.view[:] = data = os.urandom(SIZE)
    push, grant = ends.granted_all(SIZE)
    assert await ends.sender.push(staging, grant) == "shm"
    received = await arrived(push)
    assert not ends.receiving.on_device
    assert bytes(received.view) == data
    received.release()
    staging.release()


# ---- another way -----------------------------------------------------------------------------------------------------


async def by_host(ends: DeviceEnds, endpoints: list[Endpoint]) -> str:
    """Push to the endpoints; the bytes must arrive in host memory. The way they took."""
    staging = ends.staged(SIZE)
    data = found(staging)
    push, grant = ends.granted(SIZE)
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, endpoints, grant.deadline_ms)
    way = await ends.sender.push(staging, grant)
    received = await arrived(push)
    assert not ends.receiving.on_device
    assert bytes(received.view) == data
    received.release()
    staging.release()
    return way


@pytest.mark.parametrize("way", ["shm", "tcp"])
async def test_to_a_receiver_that_offers_no_device_it_goes_by_host_memory(ends: DeviceEnds, way: str) -> None:
    assert await by_host(ends, [one for one in ends.receiver.endpoints if one.transport == way]) == way
    assert ends.devices[0].to_hosts == 1


@pytest.mark.parametrize("elsewhere", ["baton-device-fake-another-host-1", "baton-device-npu-{here}-1", "/run/x.sock"])
async def test_an_address_that_is_none_of_our_host_and_kind_is_passed_over(ends: DeviceEnds, elsewhere: str) -> None:
    here = ends.endpoint.address.split("-")[3]
    endpoint = Endpoint("cuda_ipc", elsewhere.format(here=here))
    assert await by_host(ends, [endpoint, *ends.receiver.endpoints[1:]]) == "shm"


async def test_a_receiver_that_is_gone_is_passed_over(ends: DeviceEnds) -> None:
    gone = Endpoint("cuda_ipc", ends.endpoint.address + "0")
    assert await by_host(ends, [gone, *ends.receiver.endpoints[1:]]) == "shm"


async def test_a_device_out_of_reach_is_asked_once(ends: DeviceEnds) -> None:
    ends.devices[1].apart = "no peer access"
    assert [await by_host(ends, ends.receiver.endpoints) for _ in range(3)] == ["shm"] * 3
    assert ends.devices[1].opens == 1


async def test_after_a_failed_copy_the_buffer_goes_by_host_memory(ends: DeviceEnds) -> None:
    ends.devices[1].broken = "an uncorrectable error"
    staging = ends.staged(SIZE)
    push, grant = ends.granted_all(SIZE)
    with pytest.raises(KvRefused, match="memory"):
        await ends.sender.push(staging, grant)
    assert isinstance(push, Push)
    await refused(push, "memory")
    assert staging.offset in ends.sending.on_device
    staging.release()
    assert await by_host(ends, ends.receiver.endpoints) == "shm"


async def test_a_device_that_cannot_even_be_read_is_a_lost_buffer(ends: DeviceEnds) -> None:
    ends.devices[0].broken = "fell off the bus"
    staging = ends.staged(SIZE)
    for endpoints in (ends.receiver.endpoints, ends.receiver.endpoints[1:]):
        push, grant = ends.granted(SIZE)
        grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, endpoints, grant.deadline_ms)
        with pytest.raises(WorkerLost, match="fell off the bus"):
            await ends.sender.push(staging, grant)
        push.cancel()
    staging.release()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_a_receiver_without_a_whole_mirror_of_its_arena_offers_none(size: int) -> None:
    arena = Arena(4 * MIB)
    device = FakeDevice(size * MIB) if size else None
    arena.device = device
    receiver = await Receiver.open(KvSettings(), arena)
    assert [one.transport for one in receiver.endpoints] == ["shm", "tcp"]
    await receiver.close()
    arena.close()
    if device is not None:
        device.close()


async def test_without_shared_memory_there_is_no_way_between_devices_either() -> None:
    arena = Arena(MIB)
    arena.device = device = FakeDevice(arena.size)
    receiver = await Receiver.open(KvSettings(shared_memory=False), arena)
    assert [one.transport for one in receiver.endpoints] == ["tcp"]
    await receiver.close()
    arena.close()
    device.close()
