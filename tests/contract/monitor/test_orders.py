"""Orders to the leading monitor: what becomes of them, who answers, and what survives a leader or Redis."""

import asyncio
import dataclasses
import functools
import signal

from services.monitor.service import Monitor
from shared import keys
from shared.bus import Delivery
from shared.config import Config, Nats
from shared.errors import Code, Unavailable
from shared.messages import (
    BUCKETS,
    ExplainOrder,
    GroupTraffic,
    Happening,
    Rejected,
    Role,
    ScaleOrder,
    Told,
    Traffic,
    UpgradeOrder,
    Value,
    decode,
    encode,
)
from shared.reloading import Reloading
from tests.contract.monitor.stages import Alive, Stage, chat, eventually, set_up, whole_fleet
from tests.servers import RedisServer
from tests.waiting import until


async def _ask(stage: Stage, order: Value | bytes) -> Told | Rejected:
    answer: Told | Rejected = await stage.observer.request(
        stage.subjects.orders(), order, Told | Rejected, timeout_s=5.0
    )
    return answer


async def _kinds(stage: Stage) -> set[str]:
    found = await stage.redis.lrange(keys.EVENTS, 0, -1)
    return {decode(data, Happening).kind for data in found}


async def test_one_decode_more_is_planned_ordered_of_a_standby_and_told(stage: Stage) -> None:
    await whole_fleet(stage)
    standby = stage.standby("standby-1")
    await eventually(lambda: stage.record("standby-1"), "the standby is known")
    told = await _ask(stage, ScaleOrder("chat", decode=2, dry_run=True))
    assert isinstance(told, Told)
    assert [group.decodes for group in stage.maps[-1].groups] == [1]
    told = await _ask(stage, ScaleOrder("chat", decode=2))
    assert isinstance(told, Told)
    assert not told.settled
    async with asyncio.timeout(15):
        assert await standby.task == 0
    order = standby.service.becoming.order
    assert (order.role, order.scenario, order.group, order.revision.number) == (Role.DECODE, "chat", "main", 0)
    stage.worker(Role.DECODE, "standby-1")  # what its process would become
    final = await stage.map_is(["prefill-1"], ["decode-1", "standby-1"])
    assert [(group.prefills, group.decodes) for group in final.groups] == [(1, 2)]

    async def told_all() -> bool:
        return await _kinds(stage) >= {"lead", "group", "joined", "scale", "plan", "assigned", "substituted"}

    await eventually(told_all, "the journal in Redis tells all of it")


async def test_a_wrong_order_is_refused_and_bad_bytes_change_nothing(stage: Stage) -> None:
    await whole_fleet(stage)
    for order, code in (
        (ExplainOrder("code"), Code.UNKNOWN_SCENARIO),
        (UpgradeOrder("chat", back=True), Code.BAD_REQUEST),
        (b"\xc1", Code.MALFORMED),
        (encode(Told("x", "y")), Code.MALFORMED),
    ):
        answer = await _ask(stage, order)
        assert isinstance(answer, Rejected)
        assert answer.code is code
    for subject in (stage.subjects.links("chat", "prefill-1"), stage.subjects.traffic("chat", "gateway-1")):
        for data in (b"", b"\xc1", encode(Told("x", "y"))):
            await stage.observer.publish(subject, data)
    explained = await _ask(stage, ExplainOrder("chat"))
    assert isinstance(explained, Told)
    assert explained.text.startswith("chat: main open (1 of 1 prefills, 1 of 1 decodes)")


async def test_traffic_that_gateways_report_is_what_is_explained(stage: Stage) -> None:
    await whole_fleet(stage)
    buckets = [1, *[0] * (BUCKETS - 1)]
    for number in range(1, 4):
        group = GroupTraffic("main", number, 0, buckets, buckets, number * 1000, number * 9000, number * 1000, number)
        report = Traffic("gateway-1", (1, 1), "chat", number, number * 10, waiting=7, groups=[group])
        await stage.observer.publish(stage.subjects.traffic("chat", "gateway-1"), report)
        await stage.observer.publish(stage.subjects.traffic("chat", "somebody-else"), report)
    answer = await _ask(stage, ExplainOrder("chat"))
    assert isinstance(answer, Told)
    assert "7 wait" in answer.text


async def test_an_upgrade_that_instances_refuse_is_taken_back_at_once(stage: Stage) -> None:
    await whole_fleet(stage)
    names = [f"standby-{number}" for number in range(1, 5)]
    for name in names:
        stage.standby(name, willing=False)
        await eventually(functools.partial(stage.record, name), f"{name} is known")
    told = await _ask(stage, UpgradeOrder("chat", options={"a": 1}))
    assert isinstance(told, Told)
    assert told.revision == 1
    await until(lambda: any(one.target == 1 for one in stage.maps), "the new revision is the target")
    await until(lambda: stage.maps[-1].target == 0, "the old revision is the target again")
    await until(lambda: [group.name for group in stage.maps[-1].groups] == ["main"], "the new group is gone")
    answer = await _ask(stage, ExplainOrder("chat"))
    assert isinstance(answer, Told)
    assert answer.revision == 0
    await eventually(lambda: _tells(stage, "3 instances could not run revision 1"), "the journal tells why")


async def _tells(stage: Stage, text: str) -> bool:
    found = await stage.redis.lrange(keys.EVENTS, 0, -1)
    return any(text in decode(data, Happening).text for data in found)


async def test_only_the_leader_answers_and_the_next_one_goes_on_with_the_plan(stage: Stage) -> None:
    first, _, _ = await whole_fleet(stage)
    stage.put_on(Monitor(), "monitor-2")
    await eventually(lambda: stage.record("monitor-2"), "the second monitor runs")
    heard: list[Told | Rejected] = []

    def hear(delivery: Delivery) -> None:
        heard.append(decode(delivery.data, Told | Rejected))

    inbox = stage.observer.inbox()
    await stage.observer.subscribe(inbox, hear)
    await stage.observer.publish(stage.subjects.orders(), ScaleOrder("chat", decode=2), reply=inbox)
    await until(lambda: bool(heard), "somebody answers")
    await asyncio.sleep(0.2)
    assert [answer.instance for answer in heard] == ["monitor-1"]
    before = stage.pulses[-1].epoch
    assert await first.stop() == 0
    await until(lambda: stage.maps[-1].epoch > before, "the second monitor leads")
    assert [group.decodes for group in stage.maps[-1].groups] == [2], "it knows the plan from the map"
    answer = await _ask(stage, ExplainOrder("chat"))
    assert answer.instance == "monitor-2"
    assert {"scale", "lead"} <= await _kinds(stage)


async def test_an_outage_of_redis_ends_neither_the_monitor_nor_the_plan(
    nats_settings: Nats, own_redis_server: RedisServer
) -> None:
    async with set_up(nats_settings, own_redis_server.settings()) as stage:
        monitor, _, _ = await whole_fleet(stage)
        assert isinstance(await _ask(stage, ScaleOrder("chat", decode=2)), Told)
        own_redis_server.signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        pulses = len(stage.pulses)
        own_redis_server.signal(signal.SIGCONT)
        await until(lambda: len(stage.pulses) > pulses, "the monitor leads again")
        answer = await asyncio.wait_for(_answered(stage), 15)
        assert [group.decodes for group in stage.maps[-1].groups] == [2]
        assert "1 of 2 decodes" in answer.text
        assert not monitor.task.done()


async def _answered(stage: Stage) -> Told:
    while True:
        try:
            answer = await _ask(stage, ExplainOrder("chat"))
        except Unavailable:
            continue  # nobody leads for a moment
        if isinstance(answer, Told):
            return answer


async def test_other_sizes_in_the_configuration_are_taken_by_a_reload(stage: Stage) -> None:
    monitor, _, _ = await whole_fleet(stage)
    config = dataclasses.replace(monitor.config, scenario=chat(decode=3))
    assert await _reloaded(monitor, config) == []
    await until(lambda: [group.decodes for group in stage.maps[-1].groups] == [3], "three decodes are wanted")


async def _reloaded(monitor: Alive, config: Config) -> list[str]:
    reloading: Reloading = monitor.service._instance.reloading
    reloading._read = lambda: config
    return await reloading.reload()
