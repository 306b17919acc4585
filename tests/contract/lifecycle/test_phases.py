"""One life of an instance: start, ready, drain, stop, and what its own failures make of it."""

import dataclasses

from redis.asyncio import Redis

from shared import keys
from shared.errors import EngineFailed
from shared.messages import (
    Role,
    State,
)
from tests.contract.lifecycle.lives import FLEET, Begin
from tests.probe_service import Probe
from tests.waiting import until


async def test_a_whole_life_is_seen_by_bus_redis_and_health(begin: Begin, redis_client: Redis) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    assert (await life.get("/healthz"))[0] == 200
    assert await life.get("/readyz") == (200, "ready\n")
    status, metrics = await life.get("/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in metrics
    assert "baton_bus_published_total" in metrics
    await until(lambda: any(s.state is State.READY for s in life.heard), "it is heard to be ready")
    ready = next(s for s in life.heard if s.state is State.READY)
    assert (ready.instance, ready.scenario, ready.group, ready.role) == ("decode-1", "chat", "g1", Role.DECODE)
    assert (ready.slots, ready.free, ready.steps, ready.busy, ready.kv_free_bytes) == (4, 3, 7, True, 1024)
    assert ready.epoch == instance.epoch > (0, 0)
    assert await redis_client.exists(keys.lease("decode-1"))

    assert await life.stop() == 0
    record = await life.record(redis_client)
    assert (record.state, record.reason, record.load, record.epoch) == (State.STOPPED, "the test ends", 0, ready.epoch)
    assert not await redis_client.exists(keys.lease("decode-1"))
    assert 0 < await redis_client.pttl(keys.instance("decode-1")) <= keys.RECORD_TTL_MS
    assert life.probe.drained_with == [5.0]
    assert life.probe.closed
    await until(lambda: life.heard[-1].state is State.STOPPED, "the end is heard")
    states = list(dict.fromkeys(s.state for s in life.heard))
    assert states == [State.STARTING, State.READY, State.DRAINING, State.STOPPED]
    assert [s.number for s in life.heard] == sorted({s.number for s in life.heard})


async def test_while_it_starts_it_is_alive_but_not_ready(begin: Begin, redis_client: Redis) -> None:
    life = await begin(Probe(open_s=60))
    await until(lambda: life.probe.instance is not None, "it starts")
    assert await life.get("/readyz") == (503, "starting\n")
    assert (await life.get("/healthz"))[0] == 200
    assert (await life.record(redis_client)).state is State.STARTING
    assert await life.stop() == 0
    assert life.probe.closed
    assert life.probe.drained_with == []
    assert (await life.record(redis_client)).state is State.STOPPED


async def test_a_requirement_of_the_service_keeps_it_from_being_ready(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    reasons = ["no decode worker"]
    life.probe.instance.require(lambda: reasons[0])
    assert await life.get("/readyz") == (503, "no decode worker\n")
    reasons[0] = ""
    assert await life.get("/readyz") == (200, "ready\n")


async def test_a_service_that_cannot_open_fails_with_its_reason(begin: Begin, redis_client: Redis) -> None:
    life = await begin(Probe(fails=EngineFailed("the model does not fit", fatal=True)))
    assert await life.ended() == 1
    record = await life.record(redis_client)
    assert (record.state, record.reason) == (State.FAILED, "the model does not fit")
    assert not await redis_client.exists(keys.lease("decode-1"))


async def test_a_bug_in_a_service_is_a_failure_too(begin: Begin) -> None:
    life = await begin(Probe(fails=ZeroDivisionError("oops")))
    assert await life.ended() == 1
    assert life.stopping.reason == "ZeroDivisionError: oops"


async def test_the_failure_of_a_vital_task_ends_the_instance(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None

    async def die() -> None:
        raise EngineFailed("the device is gone", fatal=True)

    _ = life.probe.instance.vital.spawn(die(), name="steps")
    assert await life.ended() == 1
    assert life.stopping.reason == "steps failed: the device is gone"


async def test_the_failure_of_a_requests_task_ends_nothing(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None

    async def die() -> None:
        raise RuntimeError("one request's bug")

    _ = instance.tasks.spawn(die(), name="request")
    await until(lambda: instance.tasks.failures == 1, "it is counted")
    assert life.state is State.READY


async def test_a_drain_that_overruns_its_seconds_is_cut_and_counts_as_failure(begin: Begin) -> None:
    fleet = dataclasses.replace(FLEET, drain_s=0.0)
    life = await begin(Probe(drain_s=60), fleet=fleet)
    await life.ready()
    assert await life.stop() == 1
