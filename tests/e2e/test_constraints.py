"""A constraint on its whole way: gateway, prefill, decode, and over the death of a decode in the middle of the text."""

import asyncio
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from shared.config import Nats, RedisSettings
from shared.errors import Code
from shared.messages import Constraint, Failed, Finish, Finished, Request
from tests.e2e.local_cluster import LocalCluster
from tests.e2e.relay_processes import Heard, Relay, relay
from tests.waiting import until

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 12},
        "rows": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3},
            "minItems": 12,
            "maxItems": 12,
        },
    },
    "required": ["title", "rows"],
    "additionalProperties": False,
}


def right(text: str) -> bool:
    value = json.loads(text)
    rows = value["rows"]
    return (
        list(value) == ["title", "rows"] and 1 <= len(value["title"]) <= 12 and [len(row) for row in rows] == [3] * 12
    )


def bound(request: Request, kind: str = "json_schema", text: str = "") -> Request:
    constraint = Constraint(kind, text or json.dumps(SCHEMA))  # type: ignore[arg-type]
    return replace(request, sampling=replace(request.sampling, constraint=constraint))


async def answered(fleet: Relay, number: int) -> Heard:
    await fleet.place(bound(fleet.request(number, max_tokens=1500)))
    return await fleet.ended(number)


async def test_a_killed_decode_changes_nothing_about_a_constrained_text(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, decodes=2) as fleet:
        reference = await answered(fleet, 7)
        assert right("".join(reference.texts))
        assert [getattr(ending, "reason", None) for ending in reference.endings] == [Finish.STOP]
        fleet.heard.clear()
        fleet.handed_off.clear()
        await fleet.place(bound(fleet.request(7, max_tokens=1500, attempt=1)))
        await until(lambda: len(fleet.heard[7].ids) > 30 and bool(fleet.handed_off), "tokens flow", 30)
        victim = fleet.handed_off[0].decode
        fleet.workers[victim].kill()
        await fleet.workers[victim].ended()
        await asyncio.sleep(0.1)
        delivered = fleet.heard[7].ids.copy()
        assert 30 < len(delivered) < len(reference.ids)
        again = fleet.request(7, max_tokens=1500, attempt=2, generated=tuple(delivered))
        await fleet.place(bound(again))
        heard = await fleet.ended(7)
        assert heard.ids == reference.ids
        assert right("".join(heard.texts))
        await fleet.quiet("p1", "d1" if victim == "d2" else "d2")


async def test_a_constraint_that_only_the_engine_can_judge_is_refused_for_good(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path) as fleet:
        await fleet.place(bound(fleet.request(1, max_tokens=20), "lark", 'start: "a" <|nobody|>'))
        heard = await fleet.ended(1)
        (ending,) = heard.endings
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.BAD_REQUEST, False)
        assert "<|nobody|>" in ending.message
        await fleet.place(fleet.request(2, max_tokens=8))
        assert isinstance((await fleet.ended(2)).endings[0], Finished)
        await fleet.quiet("p1", "d1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("cluster"))
    yield made.start()
    made.close()


def stream(url: str, told: list[str], *, schema: object = SCHEMA) -> None:
    """Collect the text of one streamed chat, then how it finished."""
    body = {
        "model": "chat",
        "stream": True,
        "seed": 7,
        "max_tokens": 1500,
        "messages": [{"role": "user", "content": "rows, please"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "rows", "schema": schema}},
    }
    request = urllib.request.Request(  # noqa: S310  our own loopback
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        for line in answer:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                told.extend(one["finish_reason"] or one["delta"].get("content") or "" for one in choices)


@pytest.mark.long
def test_a_chat_in_a_json_schema_survives_the_death_of_its_decode(cluster: LocalCluster) -> None:
    cluster.until(lambda: len(cluster.instances("standby")) == 1, "the standby is ready")
    reference: list[str] = []
    stream(cluster.url, reference)
    assert reference[-1] == "stop"
    assert right("".join(reference[:-1]))
    told: list[str] = []
    running = threading.Thread(target=stream, args=(cluster.url, told))
    running.start()
    cluster.until(lambda: len(told) > 20, "tokens flow")
    (decode,) = cluster.instances("decode")
    os.kill(decode["pid"], signal.SIGKILL)
    running.join(60)
    assert not running.is_alive()
    assert "".join(told) == "".join(reference)


def test_a_schema_that_is_none_is_answered_with_400(cluster: LocalCluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        stream(cluster.url, [], schema={"type": "objekt"})
    assert refused.value.code == 400
    assert "objekt" in json.load(refused.value)["error"]["message"]
    refused.value.close()
