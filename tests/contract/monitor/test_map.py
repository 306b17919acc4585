"""The map that the monitor announces: who joins it, who leaves it, and who takes the place of a lost member."""

import asyncio

import pytest

from services.monitor.service import Monitor
from shared.messages import (
    FIRST_VERSION,
    VERSION,
    GroupPhase,
    Link,
    Links,
    Pulse,
    Role,
    State,
    Status,
    encode,
)
from tests.contract.monitor.stages import Stage, chat, eventually, whole_fleet
from tests.waiting import until


async def test_ready_workers_are_in_the_map_on_nats_and_in_redis_under_the_leaders_epoch(stage: Stage) -> None:
    await whole_fleet(stage)
    stage.standby("standby-1")
    await eventually(lambda: _holds_the_last_map(stage), "Redis holds the announced map")
    announced = await stage.map_is(["prefill-1"], ["decode-1"])
    await until(lambda: any(pulse.epoch == announced.epoch for pulse in stage.pulses), "the leader sent a pulse")
    record = await stage.record("decode-1")
    assert record is not None
    assert [member.epoch for group in announced.groups for member in group.decode] == [record.epoch]


async def _holds_the_last_map(stage: Stage) -> bool:
    return await stage.stored() == stage.maps[-1]


async def test_a_decode_that_vanishes_leaves_the_map_and_a_standby_takes_its_place(stage: Stage) -> None:
    _, _, lost = await whole_fleet(stage)
    standby = stage.standby("standby-1")
    await eventually(lambda: stage.record("standby-1"), "the standby is known")
    await lost.vanish()
    await stage.map_is(["prefill-1"], [])
    async with asyncio.timeout(15):
        assert await standby.task == 0
    assignment = standby.service.becoming.order
    assert (assignment.role, assignment.scenario, assignment.group) == (Role.DECODE, "chat", "main")
    stage.worker(Role.DECODE, "standby-1")  # what its process would become
    await stage.map_is(["prefill-1"], ["standby-1"])

    async def noted() -> bool:
        record = await stage.record("decode-1")
        return record is not None and record.state is State.FAILED and record.reason != ""

    await eventually(noted, "the record says failed")
    lost.stopping.ask("the test ends", failed=True)


async def test_nothing_goes_to_a_pair_before_its_prefill_has_verified_it(stage: Stage) -> None:
    stage.verified = False
    stage.put_on(Monitor(), "monitor-1")
    stage.worker(Role.PREFILL, "prefill-1")
    decode = stage.worker(Role.DECODE, "decode-1")
    announced = await stage.map_is(["prefill-1"], ["decode-1"])
    await until(lambda: stage.maps[-1].groups[0].phase is GroupPhase.CONNECT, "its pairs are being verified")
    epoch = announced.groups[0].decode[0].epoch
    stranger = Links("prefill-1", announced.groups[0].prefill[0].epoch, [Link("decode-1", epoch, verified=True)])
    await stage.observer.publish(stage.subjects.links("chat", "somebody"), stranger)
    await asyncio.sleep(0.3)
    assert not any(member.joined for one in stage.maps for group in one.groups for member in group.decode)
    stage.verified = True
    await until(lambda: stage.maps[-1].groups[0].phase is GroupPhase.OPEN, "the group is open")
    assert [member.joined for member in stage.maps[-1].groups[0].decode] == [True]
    assert await decode.stop() == 0


async def test_a_worker_that_drains_leaves_the_map_at_once(stage: Stage) -> None:
    _, prefill, _ = await whole_fleet(stage)
    assert await prefill.stop() == 0
    await stage.map_is([], ["decode-1"])


async def test_a_status_that_is_none_and_one_under_another_name_change_nothing(stage: Stage) -> None:
    await whole_fleet(stage, scenario=chat(decode=2))
    intruder = Status("intruder", (9, 9), Role.DECODE, State.READY, "chat", "main", 8, 8, number=1, version=VERSION)
    await stage.observer.publish(stage.subjects.status("chat", "decode-1"), intruder)
    for data in (b"", b"\xc1", b"\x81", encode(Pulse("x", (1, 1))), bytes(1000)):
        await stage.observer.publish(stage.subjects.status("chat", "decode-1"), data)
        await stage.observer.publish(stage.subjects.map("chat"), data)
        await stage.observer.publish(stage.subjects.pulse(), data)
    await stage.observer.flush(5)
    stage.worker(Role.DECODE, "decode-2")
    await stage.map_is(["prefill-1"], ["decode-1", "decode-2"])


async def test_one_that_speaks_another_version_gets_no_place(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await whole_fleet(stage, scenario=chat(decode=2))
    for version, name in ((FIRST_VERSION, "an-older"), (VERSION + 1, "a-newer"), (VERSION, "an-equal")):
        status = Status(name, (1, 9), Role.DECODE, State.READY, "chat", "main", 8, 8, number=1, version=version)
        await stage.observer.publish(stage.subjects.status("chat", name), status)
    await stage.map_is(["prefill-1"], ["an-equal", "decode-1"])
    refused = [record.__dict__["instance"] for record in caplog.records if "another version" in record.message]
    assert refused == ["an-older", "a-newer"]
