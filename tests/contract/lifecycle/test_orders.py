"""Orders on the control subject: obeyed, refused with a reason, or no message at all."""

import dataclasses

import pytest

from shared.config import InstanceSettings
from shared.errors import Code
from shared.messages import (
    AssignRole,
    Done,
    Drain,
    Rejected,
    Reload,
    Reloaded,
    Role,
)
from tests.contract.lifecycle.lives import Begin


async def test_an_order_to_drain_is_answered_and_then_obeyed(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert await life.order(Drain(seconds=2.5)) == Done("decode-1")
    assert await life.ended() == 0
    assert life.probe.drained_with == [2.5]
    assert life.stopping.reason == "drained by order"


async def test_an_order_to_reload_is_answered_with_the_keys_that_wait_for_a_restart(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    life.fresh = dataclasses.replace(
        life.config,
        fleet=dataclasses.replace(life.config.fleet, drain_s=1.5, attempts=9),
        instance=InstanceSettings(id="another"),
    )
    assert await life.order(Reload()) == Reloaded("decode-1", ["fleet.attempts"])
    assert await life.stop() == 0
    assert life.probe.drained_with == [1.5]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (Drain(seconds=float("nan")), Code.BAD_REQUEST),
        (Drain(seconds=-1.0), Code.BAD_REQUEST),
        (Drain(seconds=1e9), Code.BAD_REQUEST),
        (AssignRole(Role.PREFILL, "chat", "g1"), Code.BAD_REQUEST),
        (b"\xc1 no message", Code.MALFORMED),
        (b"", Code.MALFORMED),
    ],
    ids=["nan", "negative", "huge", "assign", "garbage", "empty"],
)
async def test_an_order_that_cannot_be_obeyed_is_refused_with_its_reason(
    begin: Begin, order: Drain | AssignRole | bytes, code: Code
) -> None:
    life = await begin()
    await life.ready()
    answer = await life.order(order)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.instance, bool(answer.message)) == (code, "decode-1", True)
    assert not life.stopping.asked.is_set()


async def test_an_order_that_has_been_obeyed_is_answered_done_again(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    assert await life.order(AssignRole(Role.DECODE, instance.scenario, instance.group)) == Done("decode-1")


async def test_bytes_that_are_no_pulse_change_nothing(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    await life.observer.publish(life.subjects.pulse(), b"\xff\xff")
    await life.observer.flush(5)
    assert await life.order(Drain(seconds=0.0)) == Done("decode-1")
