"""Streams event by event, as they are on the wire: for comparing a resumed stream with one that nothing befell."""

import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.faults.client import events_of

NAMES = ("id", "created", "created_at", "item_id", "call_id")
"""What differs between two requests that are otherwise alike."""


@dataclass
class Stream:
    """What came, over all its connections."""

    events: list[tuple[str, str]] = field(default_factory=list)  # id and data
    status: int = 0
    stream_id: str = ""
    broken: bool = False

    @property
    def last_event_id(self) -> str:
        return next((one for one, _ in reversed(self.events) if one), "")

    @property
    def ids(self) -> list[str]:
        return [one for one, _ in self.events if one]

    @property
    def complete(self) -> bool:
        """Whether its last event came."""
        last = self.events[-1][1] if self.events else ""
        return last == "[DONE]" or '"response.completed"' in last or '"response.incomplete"' in last

    def said(self) -> list[Any]:
        """Everything but names and times, by choice: streams of one request may come in another order."""
        made = [one if one == "[DONE]" else _nameless(json.loads(one)) for _, one in self.events]
        return sorted(made, key=_choice)


def _choice(event: Any) -> int:
    choices = event.get("choices") if isinstance(event, dict) else None
    return int(choices[0]["index"]) if choices else 1000


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items() if key not in NAMES}
    return [_nameless(one) for one in value] if isinstance(value, list) else value


async def begin(url: str, path: str, body: dict[str, Any], into: Stream, *, headers: dict[str, str]) -> Stream:
    """Ask for a stream, until its end or its connection's."""
    return await _read(into, "POST", url + path, json={**body, "stream": True}, headers=headers)


async def go_on(url: str, stream: Stream, *, headers: dict[str, str], after: str | None = None) -> Stream:
    """Resume it behind the last event seen, or behind another one."""
    last = stream.last_event_id if after is None else after
    seen = {"Last-Event-ID": last} if last else {}
    return await _read(stream, "GET", f"{url}/v1/streams/{stream.stream_id}", headers={**headers, **seen})


async def _read(stream: Stream, method: str, url: str, **request: Any) -> Stream:
    stream.broken = False
    try:
        async with aiohttp.ClientSession() as session, session.request(method, url, **request) as response:
            stream.status = response.status
            async for event_id, data in events_of(response):
                stream.events.append((event_id, data))
                stream.stream_id = stream.stream_id or _id_of(data)
    except (aiohttp.ClientError, OSError):
        stream.broken = True
    return stream


def _id_of(data: str) -> str:
    event = json.loads(data) if data != "[DONE]" else {}
    return str(event.get("id") or event.get("response", {}).get("id") or "")
