"""The hurt line itself: each of its faults does what its name says, and heals."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.faults.wire import HOST, Wire
from tests.waiting import until

TEXT = bytes(range(256)) * 40


class Echo:
    """A server that says everything back, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.answer, HOST, 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    await server.wait_closed()


@pytest.fixture
async def wire(echo: Echo) -> AsyncIterator[Wire]:
    async with Wire(echo.port, seed=7) as wire:
        yield wire


class Client:
    """One connection across the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, wire: Wire) -> "Client":
        return cls(*await asyncio.open_connection(HOST, wire.port))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self, nbytes: int, seconds: float = 15) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.reader.readexactly(nbytes)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
async def client(wire: Wire) -> AsyncIterator[Client]:
    client = await Client.of(wire)
    yield client
    await client.close()


async def test_a_sound_wire_changes_nothing(client: Client, wire: Wire) -> None:
    await client.say(TEXT)
    assert await client.hear(len(TEXT)) == TEXT
    assert wire.up.passed == wire.down.passed == len(TEXT)
    client.writer.write_eof()
    assert await client.reader.read() == b""


async def test_a_cut_wire_resets_and_refuses_and_a_healed_one_takes_again(client: Client, wire: Wire) -> None:
    await client.say(b"x")
    await client.hear(1)
    await wire.cut()
    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    with pytest.raises(ConnectionRefusedError):
        await Client.of(wire)
    await wire.heal()
    again = await Client.of(wire)
    await again.say(b"y")
    assert await again.hear(1) == b"y"
    await again.close()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_held_direction_delivers_nothing_until_it_is_released(
    client: Client, wire: Wire, echo: Echo, direction: str
) -> None:
    way = wire.up if direction == "up" else wire.down
    way.hold()
    await client.say(TEXT)
    if direction == "down":
        await until(lambda: echo.heard == TEXT, "the other direction goes on")
    with pytest.raises(TimeoutError):
        await client.hear(1, 0.1)
    assert (echo.heard == b"") is (direction == "up")
    way.release()
    assert await client.hear(len(TEXT)) == TEXT


async def test_a_line_that_is_held_can_still_be_reset(client: Client, wire: Wire) -> None:
    await client.say(b"x")
    await client.hear(1)
    wire.hold()
    await client.say(b"y")
    wire.reset()
    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    await until(lambda: not wire.lines, "the line is gone")


async def test_a_swallowed_answer_was_given_all_the_same(client: Client, wire: Wire, echo: Echo) -> None:
    wire.down.swallow = True
    await client.say(b"do it")
    await until(lambda: echo.heard == b"do it", "the server has done it")
    with pytest.raises(TimeoutError):
        await client.hear(1, 0.1)


async def test_delay_and_jitter_keep_the_order(client: Client, wire: Wire) -> None:
    wire.up.delay_s, wire.up.jitter_s = 0.02, 0.02
    started = time.monotonic()
    for k in range(50):
        await client.say(bytes([k]))
        await asyncio.sleep(0.001)
    assert await client.hear(50) == bytes(range(50))
    assert time.monotonic() - started > 0.02


async def test_bandwidth_is_bounded(client: Client, wire: Wire) -> None:
    wire.up.bytes_per_s = 50_000
    started = time.monotonic()
    await client.say(TEXT)
    await client.hear(len(TEXT))
    assert time.monotonic() - started > 0.15


async def test_single_bytes_arrive_as_what_they_were(client: Client, wire: Wire) -> None:
    wire.up.slice_bytes = wire.down.slice_bytes = 1
    await client.say(TEXT[:600])
    assert await client.hear(600) == TEXT[:600]


async def test_the_bit_of_one_byte_is_flipped_and_of_no_other(client: Client, wire: Wire) -> None:
    wire.up.flip_at = (300,)
    for start in range(0, 1024, 128):
        await client.say(TEXT[start : start + 128])
    heard = await client.hear(1024)
    different = [k for k in range(1024) if heard[k] != TEXT[k]]
    assert different == [300]
    assert (heard[300] ^ TEXT[300]).bit_count() == 1


async def test_a_rate_of_flips_repeats_with_its_seed(echo: Echo) -> None:
    heard = []
    for _ in range(2):
        async with Wire(echo.port, seed=11) as wire:
            wire.up.flip_rate = 0.01
            client = await Client.of(wire)
            await client.say(TEXT)
            heard.append(await client.hear(len(TEXT)))
            assert wire.up.flipped > 10
            await client.close()
    assert heard[0] == heard[1] != TEXT


@pytest.mark.parametrize("ending", ["close_after", "reset_after"])
async def test_a_line_ends_after_so_many_bytes(client: Client, wire: Wire, echo: Echo, ending: str) -> None:
    setattr(wire.up, ending, 100)
    await client.say(TEXT)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as raised:
        await client.hear(len(TEXT))
    if ending == "reset_after":
        assert isinstance(raised.value, ConnectionResetError)
    await until(lambda: not wire.lines, "the line is gone")
    assert len(echo.heard) <= 100
    assert ending == "reset_after" or echo.heard == TEXT[:100]


async def test_what_the_target_refuses_the_wire_refuses() -> None:
    async with Wire(1) as wire:
        client = await Client.of(wire)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.hear(1)
        await client.close()
