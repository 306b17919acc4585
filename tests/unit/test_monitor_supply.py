"""The monitor's wishes for instances: repeated while something is missing, given up for nobody, told once."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from services.monitor import supply
from services.monitor.journal import Journal
from services.monitor.supply import Supply
from shared.errors import BatonError, LinkLost, Overloaded
from tests.waiting import until


class Platform:
    """A provisioner that does what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.wants: list[tuple[int, list[str]]] = []
        self.released: list[str] = []
        self.opened = 0
        self.faults: list[Exception] = []
        self.answer: Callable[[int], list[str]] = lambda missing: [f"new-{one}" for one in range(missing)]

    async def open(self) -> None:
        self.opened += 1
        self._fail()

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        self.wants.append((missing, list(seen)))
        self._fail()
        return self.answer(missing)

    async def release(self, instance: str) -> None:
        self.released.append(instance)
        self._fail()

    async def close(self) -> None:
        pass

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


class Room:
    """A supply with its platform; `texts` is the journal."""

    def __init__(self) -> None:
        self.platform = Platform()
        nowhere: Any = None
        self.journal = Journal(nowhere)
        self.may = True
        self.supply = Supply(self.platform, self.journal, seen=lambda: ["d1"], may=lambda: self.may)
        self.task = asyncio.ensure_future(self.supply.keep())

    @property
    def texts(self) -> list[str]:
        return [entry.happening.text for entry in self.journal.since()]


@pytest.fixture
async def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(supply, "AGAIN_S", 0.005)
    monkeypatch.setattr(supply, "LONGEST_S", 0.01)
    made = Room()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_what_is_missing_is_asked_for_until_it_is_not(room: Room) -> None:
    room.supply.want(2)
    await until(lambda: len(room.platform.wants) >= 3, "it is asked again")
    assert set(map(str, room.platform.wants)) == {"(2, ['d1'])"}
    room.supply.want(0)
    await asyncio.sleep(0.02)
    asked = len(room.platform.wants)
    await asyncio.sleep(0.03)
    assert len(room.platform.wants) == asked
    assert room.platform.opened == 1


@pytest.mark.parametrize("fault", [LinkLost("gone"), Overloaded("full"), BatonError("odd"), ValueError("bug")])
async def test_a_failure_is_told_once_and_tried_again(room: Room, fault: Exception) -> None:
    room.platform.faults = [fault] * 4
    room.platform.answer = lambda _: []
    room.supply.want(1)
    await until(lambda: not room.platform.faults and len(room.platform.wants) >= 2, "it was tried again")
    assert len(room.texts) <= 2
    assert str(fault) in room.texts[0]


async def test_a_release_that_failed_is_repeated_and_told_when_done(room: Room) -> None:
    room.supply.want(1)
    await until(lambda: bool(room.platform.wants), "it is open")
    room.supply.want(0)
    room.platform.faults = [LinkLost("gone") for _ in range(2)]
    room.supply.release("d1")
    room.supply.release("d1")
    await until(lambda: "given back" in room.texts[-1], "it is done")
    assert room.platform.released == ["d1", "d1", "d1"]
    assert [text for text in room.texts if "gone" in text] == ["the provisioner failed: gone"]


async def test_one_that_may_not_act_asks_for_nothing_and_forgets_on_demand(room: Room) -> None:
    room.may = False
    room.supply.want(1)
    room.supply.release("d1")
    await asyncio.sleep(0.03)
    room.supply.forget()
    room.may = True
    await asyncio.sleep(0.03)
    assert (room.platform.wants, room.platform.released) == ([], [])
