"""What an instance needs from outside, its lease, NATS and Redis: what it waits for, survives, or dies of."""

import asyncio
import signal

from redis.asyncio import Redis

from shared import keys
from shared.leases import Confirmed, Lease
from shared.messages import (
    Pulse,
    State,
)
from shared.nats_bus import NatsBus
from tests.contract.lifecycle.lives import TTL, Begin
from tests.servers import NatsServer, RedisServer
from tests.waiting import until


async def test_a_second_instance_of_the_same_id_is_refused_and_the_first_goes_on(begin: Begin) -> None:
    first = await begin()
    await first.ready()
    second = await begin()
    assert await second.ended() == 1
    assert "another living instance has the id 'decode-1'" in second.stopping.reason
    assert second.probe.instance is None  # it never loaded a model
    assert first.state is State.READY


async def test_the_lease_of_a_dead_holder_is_waited_for(begin: Begin, redis_client: Redis) -> None:
    dead = await Lease(redis_client, "decode-1", TTL).confirm()
    assert isinstance(dead, Confirmed)
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    assert life.probe.instance.epoch > dead.epoch


async def test_losing_the_lease_to_another_owner_is_fatal(begin: Begin, redis_client: Redis) -> None:
    life = await begin()
    await life.ready()
    await redis_client.hset(keys.lease("decode-1"), "owner", "somebody else")
    assert await life.ended() == 1
    assert "another instance has taken the lease" in life.stopping.reason
    assert life.probe.drained_with == []  # who is not the owner has nothing to finish


async def test_a_closed_connection_to_nats_is_fatal(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    bus = life.probe.instance.bus
    assert isinstance(bus, NatsBus)
    await bus._nc.publish("x", bytes((1 << 20) - 8), headers={"a": "b" * 32})  # the server hangs up on it
    assert await life.ended() == 1
    assert "closed for good" in life.stopping.reason


async def test_nats_away_for_a_while_is_survived(begin: Begin, own_nats_server: NatsServer) -> None:
    life = await begin(nats=own_nats_server.settings(prefix="away"))
    await life.ready()
    own_nats_server.kill()
    await until(lambda: life.probe.instance is not None and not life.probe.instance.bus.connected, "it is noticed")
    assert await life.get("/readyz") == (503, "not connected to NATS\n")
    own_nats_server.start()
    before = len(life.heard)
    await until(lambda: len(life.heard) > before, "heartbeats are heard again")
    assert life.state is State.READY


async def test_stopping_while_nats_is_away_ends_in_time(begin: Begin, own_nats_server: NatsServer) -> None:
    life = await begin(nats=own_nats_server.settings(prefix="away"))
    await life.ready()
    own_nats_server.kill()
    await until(lambda: life.probe.instance is not None and not life.probe.instance.bus.connected, "it is noticed")
    assert await life.stop() == 0


async def test_redis_away_for_all_changes_nothing_and_the_epoch_rises_after(
    begin: Begin, own_redis_server: RedisServer
) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    before = instance.epoch
    own_redis_server.kill()
    failures = instance.stats.lease_unconfirmed
    await until(lambda: instance.stats.lease_unconfirmed > failures + 5, "the ttl is over several times")
    beats = instance.stats.heartbeats
    await until(lambda: instance.stats.heartbeats > beats + 3, "the heart beats on")
    assert not instance.cut_off
    assert await life.get("/readyz") == (200, "ready\n")
    own_redis_server.start()
    await until(lambda: instance.epoch > before, "the lease is taken again with a higher epoch")
    assert life.probe.broken == 0
    assert life.state is State.READY


async def test_stopping_while_redis_stands_still_ends_in_time(begin: Begin, own_redis_server: RedisServer) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    own_redis_server.signal(signal.SIGSTOP)
    assert await life.stop() == 0
    own_redis_server.signal(signal.SIGCONT)


async def test_cut_off_alone_it_stops_acting_until_its_lease_is_back(
    begin: Begin, own_redis_server: RedisServer
) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    instance = life.probe.instance
    assert instance is not None

    async def pulse() -> None:
        while True:
            await life.observer.publish(life.subjects.pulse(), Pulse("monitor-1", (1, 1)))
            await asyncio.sleep(TTL / 6)

    pulsing = asyncio.ensure_future(pulse())
    own_redis_server.kill()
    await until(lambda: life.probe.broken == 1, "what was begun is dropped")
    assert instance.cut_off
    assert await life.get("/readyz") == (503, "cut off from Redis\n")
    await until(lambda: life.heard[-1].state is State.DRAINING, "dispatchers are told")
    own_redis_server.start()
    await until(lambda: not instance.cut_off and life.heard[-1].state is State.READY, "it acts again")
    pulsing.cancel()
    await asyncio.wait({pulsing})
    assert life.state is State.READY
