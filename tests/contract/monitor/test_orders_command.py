"""`baton scale`, `upgrade` and `explain` over real NATS, to a monitor that says what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from services.commands import orders
from services.commands.access import Access
from services.commands.orders import model_path, options, scale_order, upgrade_order
from shared.bus import Delivery
from shared.config import Nats, RedisSettings
from shared.errors import BadRequest, BatonError, Cancelled, Code, DeadlineExceeded, NoCapacity
from shared.messages import ExplainOrder, Rejected, ScaleOrder, Told, ToMonitor, UpgradeOrder, Value, decode
from shared.nats_bus import NatsBus
from shared.subjects import Subjects


class Leader:
    """Answers orders with what `answers` holds, in turn; the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[Value] = []
        self.answers: list[Told | Rejected] = []
        self.bus: NatsBus

    def hear(self, delivery: Delivery) -> None:
        self.asked.append(decode(delivery.data, ToMonitor))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.task = asyncio.ensure_future(self.bus.respond(delivery, answer))


@pytest.fixture
async def leader(nats_settings: Nats) -> AsyncIterator[Leader]:
    made = Leader()
    made.bus = await NatsBus.open(nats_settings, service="leader")
    await made.bus.subscribe(Subjects(nats_settings.prefix).orders(), made.hear)
    await made.bus.flush(5)
    yield made
    await made.bus.close()


@pytest.fixture
def give(nats_settings: Nats, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(orders, "LOOK_S", 0.01)
    access = Access(nats_settings, RedisSettings(), "operator", 1.0, "")

    async def given(order: orders.Order, wait_s: float | None = None, said: list[str] | None = None) -> str:
        return await orders._give(access, order, wait_s, (said if said is not None else []).append)

    return given


async def test_an_order_is_told_and_answered(leader: Leader, give: Callable[..., Any]) -> None:
    leader.answers = [Told("m1", "main gets one more decode")]
    assert await give(ScaleOrder("chat", decode=2)) == "main gets one more decode"
    assert leader.asked == [ScaleOrder("chat", decode=2)]


async def test_waiting_ends_when_two_answers_in_a_row_are_settled(leader: Leader, give: Callable[..., Any]) -> None:
    leader.answers = [
        Told("m1", "ordered"),
        Told("m1", "one joins", settled=False),
        Told("m1", "calm", settled=True),
        Told("m1", "one joins\nbecause", settled=False),
        Told("m2", "calm", settled=True),
    ]
    said: list[str] = []
    assert await give(ScaleOrder("chat", decode=2), 5.0, said) == "chat is as ordered"
    assert said == ["ordered", "one joins"]
    assert leader.asked == [ScaleOrder("chat", decode=2), *[ExplainOrder("chat")] * 5]


async def test_an_upgrade_that_is_taken_back_fails_the_wait(leader: Leader, give: Callable[..., Any]) -> None:
    leader.answers = [Told("m1", "begun", revision=3), Told("m1", "chat\n- upgrade: errors rose", revision=2)]
    with pytest.raises(Cancelled, match="did not last: errors rose"):
        await give(UpgradeOrder("chat", "m"), 5.0)


async def test_a_wait_is_bounded(leader: Leader, give: Callable[..., Any]) -> None:
    leader.answers = [Told("m1", "begun")]
    with pytest.raises(DeadlineExceeded, match="baton explain chat"):
        await give(ScaleOrder("chat", groups=2), 0.1)


async def test_a_refusal_says_why(leader: Leader, give: Callable[..., Any]) -> None:
    leader.answers = [Rejected("", 0, "m1", Code.UNKNOWN_SCENARIO, "there is no scenario code", retryable=False)]
    with pytest.raises(BadRequest, match="m1 refused: there is no scenario code"):
        await give(ExplainOrder("code"))


async def test_without_a_monitor_the_command_says_so(give: Callable[..., Any]) -> None:
    with pytest.raises(NoCapacity, match="No monitor that leads answers"):
        await give(ExplainOrder("chat"))


def test_an_order_that_asks_for_nothing_or_for_too_much_is_refused(nats_settings: Nats) -> None:
    access = Access(nats_settings, RedisSettings(), "operator", 1.0, "")
    for wrong in (
        lambda: scale_order("chat", prefill=None, decode=None, groups=None, group=None),
        lambda: scale_order("chat", prefill=None, decode=None, groups=2, group="main"),
        lambda: upgrade_order(access, "chat", "", []),
        lambda: upgrade_order(access, "chat", "m", [], back=True),
        lambda: upgrade_order(access, "chat", "", ["dtype"]),
    ):
        with pytest.raises(BatonError):
            wrong()
    assert scale_order("chat", prefill=None, decode=3, group=None) == ScaleOrder("chat", decode=3)
    assert upgrade_order(access, "chat", "", ["a=1"]) == UpgradeOrder("chat", options={"a": 1})


def test_options_are_json_or_text() -> None:
    assert options(["dtype=bfloat16", "n=8", "prefill_ms=[0, 1, 2]", "on=true", "a=b=c"]) == {
        "dtype": "bfloat16", "n": 8, "prefill_ms": [0, 1, 2], "on": True, "a": "b=c",
    }  # fmt: skip


def test_a_path_must_be_there_and_a_name_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert model_path("model", local=True) == str(tmp_path / "model")
    assert model_path("./model", local=False) == str(tmp_path / "model")
    assert model_path("gemma-3-270m", local=True) == "gemma-3-270m"
    assert model_path("owner/name", local=True) == "owner/name"
    assert model_path("/only/at/the/workers", local=False) == "/only/at/the/workers"
    for missing in ("./absent", "/absent", "a/b/c"):
        with pytest.raises(BadRequest, match="There is no model at /"):
            model_path(missing, local=True)
