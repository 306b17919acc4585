"""The client of Redis on the loop that the services run on: a connection that is lost is an error of the connection."""

import asyncio

import pytest
import uvloop
from redis.exceptions import RedisError

from shared.config import RedisSettings
from shared.errors import Unavailable
from shared.leases import Confirmed, Lease, open_lease_client
from shared.redis_client import RepairedSSL, open_redis_client
from tests.faults.wire import Wire
from tests.servers import RedisServer
from tests.waiting import until

TIMES = 20


def test_a_connection_that_was_reset_while_nobody_used_it_costs_one_call(redis_server: RedisServer) -> None:
    async def scene() -> int:
        lost = 0
        async with Wire(redis_server.port) as wire:
            client = open_redis_client(f"redis://:{redis_server.password}@127.0.0.1:{wire.port}/0", 5)
            for turn in range(TIMES):
                assert await client.ping()
                wire.reset()
                await asyncio.sleep(0.001 * turn)  # the loop may have noticed, or not
                try:
                    await client.ping()
                except RedisError:
                    lost += 1
            assert await client.ping()
            await client.aclose()
        return lost

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scene()) > 0


def test_a_lease_whose_connection_was_reset_is_unconfirmed_and_then_confirmed(redis_server: RedisServer) -> None:
    async def scene() -> None:
        async with Wire(redis_server.port) as wire:
            settings = RedisSettings(url=f"redis://:{redis_server.password}@127.0.0.1:{wire.port}/0")
            client = open_lease_client(settings, 20)
            lease = Lease(client, "reset", 20)
            for _ in range(TIMES):
                assert isinstance(await lease.confirm(), Confirmed)
                wire.reset()
                await asyncio.sleep(0.01)
                with pytest.raises(Unavailable):
                    await lease.confirm()
            await lease.release()
            await client.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def test_what_uvloop_says_of_a_closed_connection_is_still_what_we_repair(redis_server: RedisServer) -> None:
    """When this fails, the repair in shared/redis_client.py may go, or needs another look."""

    async def scene() -> str:
        async with Wire(redis_server.port) as wire:
            _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            await until(lambda: bool(wire.lines), "the line is there")
            wire.reset()
            await asyncio.sleep(0.05)
            try:
                writer.writelines([b"PING\r\n"])
            except RuntimeError as error:
                return str(error)
            finally:
                writer.close()
            return ""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert "closed" in runner.run(scene())


def test_a_client_over_tls_is_repaired_too() -> None:
    async def scene() -> bool:
        client = open_redis_client("rediss://127.0.0.1:1/0", 1)
        repaired = client.connection_pool.connection_class is RepairedSSL
        with pytest.raises(RedisError):
            await client.ping()
        await client.aclose()
        return repaired

    assert asyncio.run(scene())
