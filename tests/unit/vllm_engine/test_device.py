"""The worker's device arena over its ranks' devices: whole hand-offs, and what becomes of a rank that fails."""

import mmap
import os
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from shared.config import KvSettings
from shared.engine.vllm_engine.device import RankDevices, _Rank
from shared.engine.vllm_engine.device_notes import MAX_RECORD_BYTES, Fetch, Sum
from shared.engine.vllm_engine.inside.device_rank import DeviceServer
from shared.errors import WorkerLost
from shared.kv.arena import Arena, Range
from shared.kv.device_arena import DeviceError
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.wire import push_key
from shared.messages import KvGrant
from tests.fake_device import FakeDevice
from tests.kv_ends import MIB, descriptors, in_ms
from tests.waiting import until

SIZE = 4 * MIB
BUFFER = MIB + 4096


class Engine:
    """A worker's arena and its ranks' servers. Of a buffer, rank r of n has every n-th page."""

    def __init__(self, folder: Path, world: int) -> None:
        self.arena = Arena(SIZE, shared=True)
        self.devices = [FakeDevice(SIZE) for _ in range(world)]
        assert self.arena.fd is not None
        self._host = mmap.mmap(self.arena.fd, SIZE)
        self._view = memoryview(self._host)
        paths = [folder / f"device-{rank}" for rank in range(world)]
        self.servers = [
            DeviceServer(path, making(device), self._view, partial(pages, rank=rank, world=world))
            for rank, (path, device) in enumerate(zip(paths, self.devices, strict=True))
        ]
        self.device = self.arena.device = RankDevices(paths, SIZE)

    def prompt(self) -> tuple[Range, bytes]:
        """A range that the ranks have filled, each on its device and with rubbish between; the buffer it stands for."""
        staging, data = self.arena.reserve(BUFFER), os.urandom(BUFFER)
        staging.view[:] = bytes(BUFFER)
        for rank, device in enumerate(self.devices):
            device[staging.offset : staging.offset + BUFFER] = os.urandom(BUFFER)
            for start, nbytes in pages(staging.offset, BUFFER, rank, len(self.devices)):
                device[start : start + nbytes] = data[start - staging.offset :][:nbytes]
        self.arena.on_device.add(staging.offset)
        return staging, data

    def taken(self, staging: Range) -> bytes:
        """The buffer, as the ranks have it on their devices."""
        assert staging.offset in self.arena.on_device
        data = bytearray(staging.nbytes)
        for rank, device in enumerate(self.devices):
            for start, nbytes in pages(staging.offset, staging.nbytes, rank, len(self.devices)):
                data[start - staging.offset : start - staging.offset + nbytes] = device[start : start + nbytes]
        return bytes(data)

    def close(self) -> None:
        self.device.close()
        for server in self.servers:
            server.close()
        assert [device.opened for device in self.devices] == [0] * len(self.devices)
        self._view.release()
        self._host.close()
        self.arena.close()


def making(device: FakeDevice) -> Callable[[int], FakeDevice]:
    def make(nbytes: int) -> FakeDevice:
        assert nbytes == device.size
        return device

    return make


def pages(offset: int, nbytes: int, rank: int, world: int) -> Iterable[tuple[int, int]]:
    return [(offset + start, min(4096, nbytes - start)) for start in range(rank * 4096, nbytes, world * 4096)]


class Pair:
    """A prefill and a decode of so many ranks each."""

    def __init__(self, prefill: Engine, decode: Engine, receiver: Receiver) -> None:
        self.prefill = prefill
        self.decode = decode
        self.receiver = receiver
        self.sender = Sender(prefill.arena, KvSettings())

    @classmethod
    async def open(cls, folder: Path, worlds: tuple[int, int]) -> "Pair":
        sides = []
        for place, world in enumerate(worlds):
            (folder / str(place)).mkdir()
            sides.append(Engine(folder / str(place), world))
        return cls(sides[0], sides[1], await Receiver.open(KvSettings(), sides[1].arena))

    async def push(self, staging: Range) -> tuple[str, Range]:
        push = self.receiver.expect(push_key("r", 0), staging.nbytes, in_ms(20_000))
        grant = KvGrant("r", 0, "d", (1, 1), push.ticket, self.receiver.endpoints, in_ms(20_000))
        try:
            way = await self.sender.push(staging, grant)
            received = await push.received()
        finally:
            push.cancel()
        assert isinstance(received, Range)
        return way, received

    async def close(self) -> None:
        await self.sender.close()
        await self.receiver.close()
        for side in (self.prefill, self.decode):
            await until(lambda side=side: side.arena.in_use == 0, "all staging is released")  # type: ignore[misc]
            side.close()


@pytest.fixture
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    before = descriptors()
    made = await Pair.open(tmp_path, request.param)
    yield made
    await made.close()
    assert descriptors() == before


def both(*worlds: tuple[int, int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", worlds, indirect=True)


@both((1, 1), (2, 2), (8, 8))
async def test_ranks_of_equal_number_hand_over_device_by_device(pair: Pair) -> None:
    for _ in range(2):
        staging, data = pair.prefill.prompt()
        way, received = await pair.push(staging)
        assert (way, pair.decode.taken(received)) == ("cuda_ipc", data)
        assert not any(staging.view)
        assert not any(received.view)
        staging.release()
        received.release()


@both((1, 2), (2, 1), (4, 2))
async def test_ranks_of_other_numbers_bring_their_parts_to_the_host(pair: Pair) -> None:
    staging, data = pair.prefill.prompt()
    way, received = await pair.push(staging)
    assert (way, bytes(received.view)) == ("shm", data)
    assert not pair.decode.arena.on_device
    staging.release()
    received.release()


@both((2, 2))
async def test_one_rank_that_cannot_reach_its_peer_lets_go_of_the_others(pair: Pair) -> None:
    pair.decode.devices[1].apart = "no peer access"
    staging, data = pair.prefill.prompt()
    way, received = await pair.push(staging)
    assert (way, bytes(received.view)) == ("shm", data)
    assert [device.opened for device in pair.decode.devices] == [0, 0]
    assert [device.opens for device in pair.decode.devices] == [1, 1]
    staging.release()
    received.release()


@both((2, 2))
async def test_a_rank_that_has_gone_is_a_lost_buffer_and_nothing_hangs(pair: Pair) -> None:
    staging, _ = pair.prefill.prompt()
    pair.prefill.servers[1].close()
    with pytest.raises(WorkerLost, match="device-1"):
        await pair.push(staging)
    staging.release()


@both((2, 2))
async def test_what_a_rank_fails_with_is_raised_once_all_are_through(pair: Pair) -> None:
    pair.prefill.devices[0].broken = "an uncorrectable error"
    staging, _ = pair.prefill.prompt()
    with pytest.raises(DeviceError, match="uncorrectable"):
        pair.prefill.device.checksum(staging.offset, staging.nbytes, lambda: None)
    assert [device.in_use for device in pair.prefill.devices] == [0, 0]
    pair.prefill.devices[0].broken = ""
    assert len(pair.prefill.device.checksum(staging.offset, staging.nbytes, lambda: None)) == 16
    staging.release()


@both((1, 1), (2, 2))
async def test_handles_and_peers_that_are_none_are_refused(pair: Pair) -> None:
    with pytest.raises(DeviceError):
        pair.decode.device.open(b"/nowhere")
    devices = pair.decode.device
    with pytest.raises(DeviceError):
        devices.digest([Fetch(99, 0, 0, 4096)] * len(pair.decode.devices))


@both((1, 1))
async def test_a_record_that_is_none_ends_its_connection_alone(pair: Pair) -> None:
    rank = pair.prefill.device._ranks[0]
    for rubbish in (b"\0\0\0\1\xc1", (MAX_RECORD_BYTES + 1).to_bytes(4, "big"), b"\0\0\0\4abcd"):
        sock = rank._connection()
        sock.sendall(rubbish)
        assert sock.recv(1) == b""
        sock.close()
    assert len(pair.prefill.device.checksum(0, 4096, lambda: None)) == 16


async def test_without_memory_on_the_device_nothing_is_done_there(tmp_path: Path) -> None:
    server = DeviceServer(tmp_path / "0", FakeDevice, memoryview(bytearray(SIZE)))
    rank = _Rank(tmp_path / "0")
    assert "no memory was taken" in rank.end(rank.begin(Sum(0, 4096))).why
    devices = RankDevices([tmp_path / "0"], SIZE)
    assert (devices.size, len(devices.checksum(0, 4096, lambda: None))) == (SIZE, 16)
    rank.close()
    devices.close()
    server.close()


async def test_memory_that_a_rank_cannot_have_makes_no_arena(tmp_path: Path) -> None:
    def full(nbytes: int) -> FakeDevice:
        raise DeviceError(f"out of memory: {nbytes}")

    server = DeviceServer(tmp_path / "0", full, memoryview(bytearray(SIZE)))
    with pytest.raises(DeviceError, match="out of memory: 4194304"):
        RankDevices([tmp_path / "0"], SIZE)
    server.close()


@both((1, 1))
async def test_calls_use_connections_again(pair: Pair) -> None:
    for _ in range(5):
        pair.prefill.device.checksum(0, 4096, lambda: None)
    assert len(pair.prefill.servers[0]._connections) == 1


def test_ranks_with_devices_of_different_kinds_make_no_arena(tmp_path: Path) -> None:
    devices = [FakeDevice(SIZE), FakeDevice(SIZE, "other")]
    memory = memoryview(bytearray(SIZE))
    paths = [tmp_path / "0", tmp_path / "1"]
    servers = [DeviceServer(path, making(device), memory) for path, device in zip(paths, devices, strict=True)]
    with pytest.raises(DeviceError, match="other"):
        RankDevices(paths, SIZE)
    for server in servers:
        server.close()


def test_a_rank_that_does_not_listen_makes_no_arena(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be reached"):
        RankDevices([tmp_path / "nobody"], SIZE)
