"""A platform that can show what instances have become is told so again and again, and never holds anything up."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from services.monitor import supply
from services.monitor.journal import Journal
from services.monitor.provisioners import Place
from services.monitor.supply import Supply
from shared.errors import Unavailable
from tests.waiting import until


class Platform:
    """A provisioner that remembers what it was told."""

    def __init__(self) -> None:
        self.shown: list[Mapping[str, Place]] = []
        self.wants = 0
        self.opened = 0
        self.refuses = False

    async def open(self) -> None:
        self.opened += 1

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        self.wants += 1
        return []

    async def release(self, instance: str) -> None: ...

    async def close(self) -> None: ...

    async def show(self, places: Mapping[str, Place]) -> None:
        if self.refuses:
            raise Unavailable("not now")
        self.shown.append(dict(places))


async def test_places_are_shown_without_any_wish_and_a_refusal_stops_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGAIN_S", "SHOW_S"):
        monkeypatch.setattr(supply, name, 0.005)
    platform, nowhere = Platform(), None
    journal: Any = Journal(nowhere)  # type: ignore[arg-type]
    places: dict[str, Place] = {"a": ("standby", "", "")}
    line = Supply(platform, journal, seen=lambda: ["a"], may=lambda: True, places=lambda: places)
    task = asyncio.ensure_future(line.keep())
    await until(lambda: platform.shown != [], "it is shown")
    places["a"] = ("decode", "chat", "g1")
    await until(lambda: platform.shown[-1] == {"a": ("decode", "chat", "g1")}, "what has changed is shown")
    platform.refuses = True
    line.want(1)
    await until(lambda: platform.wants > 1, "wishes go on")
    assert platform.opened == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
