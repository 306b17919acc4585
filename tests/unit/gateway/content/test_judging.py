"""The stage of a service: whatever becomes of a judgment, the choice ends."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.gateway.content.external import External
from services.gateway.content.guards import ChoiceGuard
from services.gateway.content.judging import JudgeStage
from shared.config import ModeratorSettings
from shared.errors import BatonError, ModerationDown
from shared.messages import Finish
from shared.tasks import Tasks


class Broken:
    """A service whose client fails in a way that nobody foresaw."""

    settings = ModeratorSettings(kind="http", stream_chars=1)

    async def judge(self, texts: list[str]) -> str | None:
        raise RuntimeError(f"no judgment of {len(texts)}")


class Sink:
    """Gets nothing."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def text(self, index: int, text: str) -> None:
        self.got.append((index, text))

    def token(self, index: int, text: str, logprobs: object) -> None:
        self.got.append((index, text, logprobs))

    def finish(self, reason: Finish) -> None:
        self.got.append(reason)


async def test_a_judgment_that_fails_in_an_unforeseen_way_ends_the_choice(caplog: pytest.LogCaptureFixture) -> None:
    failed: asyncio.Future[BatonError] = asyncio.get_running_loop().create_future()
    tasks, sink = Tasks("a test"), Sink()
    stage = JudgeStage(cast("External", Broken()), sink, print, failed.set_result, tasks, hold=True)
    stage.text(0, "some text")
    async with asyncio.timeout(5):
        assert "broken off" in str(await failed)
    stage.finish(Finish.STOP)
    assert sink.got == []
    assert tasks.failures == 1
    assert "no judgment of 1" in caplog.text
    assert await tasks.close() == []


def test_a_judgment_that_fails_once_a_later_stage_has_ended_the_choice_fails_no_other_choice() -> None:
    said: list[str] = []
    relay = SimpleNamespace(end=lambda *_: said.append("choice ended"), close=lambda *_: said.append("call given up"))
    guard = ChoiceGuard(Sink(), cast("Any", relay))
    guard.watch(cast("Any", object()), cast("Any", SimpleNamespace(guard=None)))
    guard.finish(Finish.CONTENT_FILTER)
    guard.stop()
    guard.fail(ModerationDown("the service is gone"))
    assert said == ["choice ended"]
