"""One monitor leads: what the next one, and the same one after Redis was away or emptied, makes of the fleet."""

import asyncio
import signal

from services.monitor.service import Monitor
from shared import keys
from shared.config import (
    Nats,
)
from shared.messages import (
    ScenarioMap,
)
from tests.contract.monitor.stages import TTL, Stage, eventually, members_of, set_up, whole_fleet
from tests.servers import RedisServer
from tests.waiting import until


async def test_of_two_monitors_one_leads_and_the_other_takes_over_with_a_higher_epoch(stage: Stage) -> None:
    first, _, _ = await whole_fleet(stage)
    stage.put_on(Monitor(), "monitor-2")
    await eventually(lambda: stage.record("monitor-2"), "the second monitor runs")
    before = stage.maps[-1]
    assert {pulse.instance for pulse in stage.pulses} == {"monitor-1"}
    assert await first.stop() == 0
    await until(lambda: stage.pulses[-1].instance == "monitor-2", "the second monitor pulses")
    await until(lambda: stage.maps[-1].epoch > before.epoch, "its map outranks the first one's")
    assert members_of(stage.maps[-1]) == (["prefill-1"], ["decode-1"])


async def test_a_map_that_redis_lost_is_written_again(stage: Stage) -> None:
    await whole_fleet(stage)
    await stage.redis.delete(keys.scenario_map("chat"))
    await eventually(stage.stored, "the map is back")
    assert members_of(await stage.stored() or ScenarioMap("", 0, (0, 0))) == (["prefill-1"], ["decode-1"])


async def test_after_a_flush_of_redis_the_monitor_leads_again_and_nobody_was_lost(stage: Stage) -> None:
    await whole_fleet(stage)
    before = stage.pulses[-1].epoch
    await stage.redis.flushall()
    await until(lambda: stage.pulses[-1].epoch > before, "the monitor leads under a later epoch")
    await eventually(stage.stored, "the map is back")
    await until(lambda: stage.maps[-1].epoch > before, "the map is announced under that epoch")
    assert all(members_of(one)[1] in ([], ["decode-1"]) for one in stage.maps)
    await stage.map_is(["prefill-1"], ["decode-1"])


async def test_while_redis_stands_still_no_pulse_is_sent_and_nobody_is_removed(
    nats_settings: Nats, own_redis_server: RedisServer
) -> None:
    async with set_up(nats_settings, own_redis_server.settings()) as stage:
        await whole_fleet(stage)
        own_redis_server.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(TTL * 2)
            pulses, maps = len(stage.pulses), len(stage.maps)
            await asyncio.sleep(TTL * 2)
            assert (len(stage.pulses), len(stage.maps)) == (pulses, maps)
            assert members_of(stage.maps[-1]) == (["prefill-1"], ["decode-1"])
        finally:
            own_redis_server.signal(signal.SIGCONT)
        await until(lambda: len(stage.pulses) > pulses, "the monitor leads again")
        await stage.map_is(["prefill-1"], ["decode-1"])
