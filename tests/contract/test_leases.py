"""Leases against a real server: one owner, epochs that never go back, and calls whose answer is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.config import RedisSettings
from shared.errors import Unavailable
from shared.leases import Confirmed, Lease, Taken, open_lease_client
from tests.fakes import Clock
from tests.servers import RedisServer

TTL = 60.0
"""Long enough that nothing here expires by itself; expiry is made by deleting the key or by a short ttl of its own."""


@pytest.fixture
async def client(redis_settings: RedisSettings) -> AsyncIterator[Redis]:
    client = open_lease_client(redis_settings, TTL)
    yield client
    await client.aclose()


async def taken(lease: Lease) -> Confirmed:
    outcome = await lease.confirm()
    assert isinstance(outcome, Confirmed)
    return outcome


async def test_the_first_one_gets_the_lease_and_the_second_learns_who_has_it(client: Redis) -> None:
    first, second = Lease(client, "monitor", TTL), Lease(client, "monitor", TTL)
    held = await taken(first)
    assert held.created
    assert await second.confirm() == Taken(first.owner, held.epoch)
    assert (first.held, second.held) == (True, False)
    assert second.epoch == (0, 0)


async def test_a_renewal_keeps_the_epoch_and_prolongs_the_ttl(client: Redis) -> None:
    lease = Lease(client, "d1", TTL)
    held = await taken(lease)
    await client.pexpire(keys.lease("d1"), 1000)
    again = await taken(lease)
    assert (again.epoch, again.created) == (held.epoch, False)
    assert await client.pttl(keys.lease("d1")) > 30_000


async def test_each_new_tenure_has_a_higher_epoch_whoever_takes_it(client: Redis) -> None:
    one, other = Lease(client, "d1", TTL), Lease(client, "d1", TTL)
    epochs = []
    for lease in (one, other, one, other):
        epochs.append((await taken(lease)).epoch)
        assert await lease.release()
    assert epochs == sorted(set(epochs))


async def test_a_lease_expires_by_itself(client: Redis) -> None:
    dead, heir = Lease(client, "d1", 0.05), Lease(client, "d1", TTL)
    gone = await taken(dead)
    async with asyncio.timeout(10):
        while isinstance(outcome := await heir.confirm(), Taken):  # noqa: ASYNC110  # another process's clock
            await asyncio.sleep(0.01)
    assert outcome.epoch > gone.epoch
    assert isinstance(await dead.confirm(), Taken)


async def test_a_release_by_anyone_but_the_owner_does_nothing(client: Redis) -> None:
    owner, other = Lease(client, "d1", TTL), Lease(client, "d1", TTL)
    held = await taken(owner)
    await other.release()
    assert await taken(owner) == Confirmed(held.epoch, created=False, sent_at=pytest.approx(0, abs=1e9))


async def test_a_late_release_does_not_end_the_next_tenure(client: Redis) -> None:
    lease = Lease(client, "d1", TTL)
    await taken(lease)
    before = lease.owner
    await lease.release()
    await taken(lease)
    assert lease.owner != before


async def test_the_holders_clock_counts_from_before_the_call_left(client: Redis) -> None:
    clock = Clock()
    lease = Lease(client, "d1", 3.0, clock=clock)
    original = client.eval

    async def slow(*arguments: object) -> object:
        clock.advance(1.0)  # on its way
        answer = await original(*arguments)
        clock.advance(1.0)  # and back
        return answer

    client.eval = slow  # type: ignore[method-assign, assignment]
    held = await taken(lease)
    assert held.sent_at == 1000.0
    clock.now = 1002.69
    assert lease.held
    clock.now = 1002.71  # a tenth of the ttl earlier than Redis forgets
    assert not lease.held


async def test_a_flush_never_lets_an_epoch_go_back(client: Redis) -> None:
    lease, other = Lease(client, "d1", TTL), Lease(client, "d2", TTL)
    for _ in range(5):
        await taken(other)
        await other.release()
    before = (await taken(lease)).epoch
    await client.flushall()
    after = await taken(lease)
    assert after.created
    assert after.epoch > before
    assert after.epoch[0] > before[0]
    assert (await taken(other)).epoch > before


async def test_a_holder_that_knows_a_higher_boot_number_raises_it(client: Redis) -> None:
    lease = Lease(client, "d1", TTL)
    lease.saw((4_000_000_000, 17))
    assert (await taken(lease)).epoch > (4_000_000_000, 17)


async def test_a_restart_of_redis_raises_the_boot_number_even_if_the_last_writes_are_gone(
    own_redis_server: RedisServer,
) -> None:
    client = open_lease_client(own_redis_server.settings(), 4.0)
    lease = Lease(client, "d1", 4.0)
    before = (await taken(lease)).epoch
    await client.set(keys.FENCE, "0")  # what a counter looks like whose last second was lost
    await client.delete(keys.lease("d1"))
    own_redis_server.kill()
    with pytest.raises(Unavailable):
        await lease.confirm()
    own_redis_server.start()
    after = (await taken(lease)).epoch
    assert after > before
    await client.aclose()


async def test_a_frozen_redis_is_unknown_within_a_fraction_of_the_ttl(own_redis_server: RedisServer) -> None:
    client = open_lease_client(own_redis_server.settings(), 0.4)
    lease = Lease(client, "d1", 0.4)
    await taken(lease)
    own_redis_server.signal(signal.SIGSTOP)
    async with asyncio.timeout(20):  # the library's own default would hold the call for a minute
        with pytest.raises(Unavailable, match="did not confirm baton:lease:d1"):
            await lease.confirm()
        assert await lease.release() is False
    own_redis_server.signal(signal.SIGCONT)
    await client.aclose()


class Deaf:
    """A TCP relay that swallows the answers of the server while it is told to."""

    def __init__(self) -> None:
        self.swallows = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, settings: RedisSettings) -> RedisSettings:
        target = urlsplit(settings.url)
        assert target.port is not None

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
            for source, sink, answers in ((reader, up_writer, False), (up_reader, writer, True)):
                task = asyncio.ensure_future(self._pump(source, sink, answers=answers))
                self._tasks.add(task)

        self._server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return RedisSettings(url=f"redis://:{target.password}@127.0.0.1:{port}/0")

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await source.read(65536):
                if not (answers and self.swallows):
                    sink.write(data)
        finally:
            sink.close()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


async def test_a_call_that_was_done_but_not_answered_can_be_repeated(redis_settings: RedisSettings) -> None:
    deaf = Deaf()
    client = open_lease_client(await deaf.open(redis_settings), 0.4)
    lease = Lease(client, "d1", TTL)
    await client.ping()
    deaf.swallows = True
    with pytest.raises(Unavailable):
        await lease.confirm()
    deaf.swallows = False
    again = await taken(lease)
    assert again.created is False  # the first call had taken it
    assert again.epoch[1] == 1  # and it was counted once
    await client.aclose()
    await deaf.close()


async def test_what_is_no_lease_under_our_key_is_unavailable_not_a_crash(client: Redis) -> None:
    await client.hset(keys.lease("d1"), mapping={"owner": b"\xff"})
    with pytest.raises(Unavailable, match="no lease of ours"):
        await Lease(client, "d1", TTL).confirm()
    await client.set(keys.lease("d2"), "a string")
    with pytest.raises(Unavailable):
        await Lease(client, "d2", TTL).confirm()
