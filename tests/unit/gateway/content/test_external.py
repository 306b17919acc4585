"""The breaker before a service that judges: it opens for the service's faults, not for our crowd."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.content.external import BREAK_AFTER, External
from services.gateway.content.report import Report
from shared.config import ModeratorSettings
from shared.errors import ModerationDown


async def test_questions_that_found_no_free_place_do_not_open_the_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModeratorSettings(kind="http", url="http://nowhere", timeout_s=0.2, max_concurrent=1)
    service, judged, free = External("judge", settings, Report(CollectorRegistry())), asyncio.Event(), asyncio.Event()

    async def slowly(_: External, texts: list[str]) -> str | None:
        judged.set()
        await free.wait()
        return None if texts == ["fine"] else "weapons"

    monkeypatch.setattr(External, "_post", slowly)
    async with service._places:  # all places are taken
        crowd = [service.judge(["fine"]) for _ in range(BREAK_AFTER + 1)]
        for said in await asyncio.gather(*crowd, return_exceptions=True):
            assert isinstance(said, ModerationDown)
    assert not judged.is_set()
    free.set()
    assert await service.judge(["a bomb"]) == "weapons"
    free.clear()
    for _ in range(BREAK_AFTER):  # the service itself is slow
        with pytest.raises(ModerationDown):
            await service.judge(["fine"])
    free.set()
    with pytest.raises(ModerationDown):
        await service.judge(["fine"])
