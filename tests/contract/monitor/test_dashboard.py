"""The monitor's dashboard over HTTP: what it shows, which orders it takes, and a monitor that cannot open it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from services.monitor.dashboard.commands import MOST_BYTES
from services.monitor.dashboard.figures import DrainOrder, Order
from services.monitor.service import Monitor
from services.monitor.view import View
from shared.errors import Code, NoCapacity
from shared.messages import Rejected, Role, ScaleOrder, Told
from shared.telemetry import Telemetry
from tests.contract.monitor.scene import Scene, realistic
from tests.contract.monitor.screenshots import shown
from tests.contract.monitor.stages import Stage, whole_fleet

TOKEN = "the operator's own"
GOOD = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
SCALE = '{"order": "scale", "scenario": "chat", "decode": 3}'


class Desk:
    """Takes orders as a monitor does."""

    def __init__(self) -> None:
        self.placed: list[Order] = []

    async def place(self, order: Order) -> Told | Rejected:
        self.placed.append(order)
        match order:
            case ScaleOrder(scenario="away"):
                raise NoCapacity("no monitor leads")
            case DrainOrder(instance="d-8"):
                raise NoCapacity("nobody listens on that subject")
            case DrainOrder():
                return Rejected("", 0, "m", Code.BAD_REQUEST, "no such instance")
            case _:
                return Told("monitor-1", "3 decodes from now on", settled=False, revision=2)


@pytest.fixture
def scene() -> Scene:
    return realistic()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
async def client(scene: Scene, desk: Desk, token: str) -> AsyncIterator[aiohttp.ClientSession]:
    view = View(
        "monitor-1",
        Telemetry(Role.MONITOR, "monitor-1"),
        scene.report,
        lambda: True,
        figures=scene.figures,
        happenings=scene.happenings,
        order=desk.place,
        token=token,
    )
    url = await view.open("127.0.0.1", 0)
    async with aiohttp.ClientSession(url) as session:
        yield session
    await view.close()


async def _event(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    """Read the next event of a stream."""
    kind = ""
    async with asyncio.timeout(15):
        async for line in answer.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                return kind, json.loads(value)
    raise AssertionError("the stream ended")


async def test_the_dashboard_shows_the_fleet_to_people_programs_and_prometheus(stage: Stage) -> None:
    monitor, _, _ = await whole_fleet(stage)
    base = f"http://127.0.0.1:{monitor.config.monitor.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/status") as answer:
            status = await answer.json()
        async with session.get(f"{base}/") as answer:
            page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        async with session.get(f"{base}/metrics") as answer:
            metrics = await answer.text()
        async with session.get(f"{base}/events") as answer:
            kind, whole = await _event(answer)
            while "group chat main" not in whole.get("parts", whole.get("changed")):
                kind, whole = await _event(answer)
    assert {one["id"] for one in status["instances"]} >= {"prefill-1", "decode-1"}
    assert (status["monitor"], status["leading"], status["scenarios"][0]["ratio"]) == ("monitor-1", True, "1:1")
    assert "<title>Baton</title>" in page
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert kind in ("whole", "state")
    assert [one["id"] for one in whole.get("parts", whole.get("changed"))["group chat main"]["decode"]] == ["decode-1"]
    assert 'baton_map_members{group="main",role="decode",scenario="chat"} 1.0' in metrics
    assert "baton_monitor_leading 1.0" in metrics


async def test_a_taken_dashboard_port_ends_the_monitor_with_a_clear_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, _, _ = await whole_fleet(stage)
    second = stage.put_on(Monitor(), "monitor-2", monitor=monitor.config.monitor)
    async with asyncio.timeout(15):
        assert await second.task == 1
    assert f"cannot listen on 127.0.0.1:{monitor.config.monitor.port} for the dashboard" in caplog.text


async def test_a_stream_begins_with_the_whole_and_goes_on_with_changes(
    client: aiohttp.ClientSession, scene: Scene
) -> None:
    async with client.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        kind, data = await _event(answer)
        while "scenario chat" not in data.get("parts", data.get("changed")):  # the first look may be still to come
            kind, data = await _event(answer)
        scene.kinds.pop()
        while kind != "state" or "group code code-a" not in data["gone"]:
            kind, data = await _event(answer)
        assert "scenario code" in data["gone"]


async def test_a_stream_ends_with_the_monitor() -> None:
    async with aiohttp.ClientSession() as session:
        async with shown(realistic()) as url:
            answer = await session.get(f"{url}/events")
            assert (await _event(answer))[0] == "whole"
        async with asyncio.timeout(15):
            _ = await answer.content.read()
        assert answer.content.at_eof()


async def test_who_cannot_hear_a_stream_may_ask(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.monitor.dashboard.stream.MOST_VIEWERS", 0)
    async with client.get("/events") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    async with client.get("/snapshot") as answer:
        whole = await answer.json()
    assert {"at", "parts", "history", "happenings"} == set(whole)


async def test_an_order_is_carried_out_and_answered(client: aiohttp.ClientSession, desk: Desk) -> None:
    async with client.post("/orders", data=SCALE, headers=GOOD) as answer:
        assert answer.status == 200
        assert await answer.json() == {
            "text": "3 decodes from now on",
            "settled": False,
            "revision": 2,
            "monitor": "monitor-1",
        }
    assert desk.placed == [ScaleOrder("chat", decode=3)]


@pytest.mark.parametrize(
    ("body", "headers", "refusal"),
    [
        (SCALE, {"Content-Type": "application/json"}, (401, "token is wrong")),
        (SCALE, {**GOOD, "Authorization": "Bearer guess"}, (401, "token is wrong")),
        (SCALE, {**GOOD, "Content-Type": "text/plain"}, (415, "application/json")),
        (SCALE, {**GOOD, "Origin": "http://evil.example"}, (403, "own page only")),
        (SCALE, {**GOOD, "Sec-Fetch-Site": "cross-site"}, (403, "own page only")),
        ("{}", GOOD, (400, "one of scale")),
        ("[" * (MOST_BYTES + 1), GOOD, (413, "at most")),
    ],
)
async def test_an_order_that_is_not_in_order_is_never_placed(
    client: aiohttp.ClientSession, desk: Desk, body: str, headers: dict[str, str], refusal: tuple[int, str]
) -> None:
    status, says = refusal
    async with client.post("/orders", data=body, headers=headers) as answer:
        assert (answer.status, says in (await answer.json())["error"]) == (status, True)
    assert desk.placed == []


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ('{"order": "drain", "instance": "d-9"}', 409, "no such instance"),
        ('{"order": "drain", "instance": "d-8"}', 409, "No instance of the id d-8 answers."),
        ('{"order": "scale", "scenario": "away", "decode": 3}', 503, "no monitor leads"),
    ],
)
async def test_what_the_monitor_refuses_is_said(
    client: aiohttp.ClientSession, body: str, status: int, says: str
) -> None:
    async with client.post("/orders", data=body, headers=GOOD) as answer:
        assert (answer.status, (await answer.json())["error"]) == (status, says)


@pytest.mark.parametrize("token", [""])
async def test_without_a_token_there_is_nothing_to_press(client: aiohttp.ClientSession, desk: Desk) -> None:
    async with client.post("/orders", data=SCALE, headers={**GOOD, "Authorization": "Bearer "}) as answer:
        assert (answer.status, "monitor.token" in (await answer.json())["error"]) == (403, True)
    async with client.get("/events") as answer:
        _, data = await _event(answer)
        while "fleet" not in data.get("parts", data.get("changed")):
            _, data = await _event(answer)
    assert data.get("parts", data.get("changed"))["fleet"]["orders"] is False
    assert desk.placed == []
