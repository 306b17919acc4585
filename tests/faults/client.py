"""A client that notes everything it is sent, and when. Judges nothing and never raises for what a server does."""

import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp


class Event(NamedTuple):
    """One server-sent event that carried something of a choice."""

    at: float  # monotonic
    id: str
    text: str
    choice: int = 0


@dataclass
class Answer:
    """What came of one request."""

    sent_at: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0
    status: int = 0
    request_id: str = ""
    events: list[Event] = field(default_factory=list)  # tokens, in order of arrival
    finishes: list[tuple[int, str]] = field(default_factory=list)  # choice and finish reason, each time one was said
    usage: dict[str, Any] | None = None
    logprobs: list[Any] = field(default_factory=list)
    tool_calls: list[Any] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)  # error objects, or the text of an exception
    dones: int = 0  # how often [DONE] came
    last_event_id: str = ""

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.text_of(0)

    def text_of(self, choice: int) -> str:
        return "".join(event.text for event in self.events if event.choice == choice)

    @property
    def finish_reason(self) -> str | None:
        """Of the first choice."""
        return next((reason for choice, reason in self.finishes if choice == 0), None)

    @property
    def error(self) -> Any:
        """The error object or the exception's text; None where there was none."""
        return self.errors[0] if self.errors else None

    @property
    def code(self) -> str:
        """The error's code; empty where there is none."""
        return str(self.error.get("code") or self.error.get("type")) if isinstance(self.error, dict) else ""

    @property
    def broken(self) -> bool:
        """Whether the connection ended before the answer did."""
        return self.status == 200 and not self.dones

    @property
    def whole(self) -> bool:
        """Whether it ended well."""
        return self.dones == 1 and not self.errors and bool(self.finishes)

    @property
    def longest_gap_s(self) -> float:
        """Longest silence between two tokens."""
        times = [event.at for event in self.events]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    @property
    def first_s(self) -> float:
        """From sending to the first token."""
        return self.events[0].at - self.sent_at if self.events else float("inf")


async def ask(
    url: str,
    prompt: str,
    max_tokens: int,
    *,
    seed: int,
    temperature: float = 1.0,
    timeout_s: float = 60,
    headers: dict[str, str] | None = None,
    chat: bool = False,
    into: Answer | None = None,
    **params: Any,
) -> Answer:
    """Ask a gateway for a stream, as a completion or as a chat, and note what comes. `into`: noted while it comes."""
    body: dict[str, Any] = {
        "model": "chat",
        **({"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}),
        "max_tokens": max_tokens,
        "seed": seed,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        **params,
    }
    answer = into or Answer()
    path = "/v1/chat/completions" if chat else "/v1/completions"
    await _exchange(answer, timeout_s, "POST", url + path, json=body, headers=headers)
    return answer


async def resume(url: str, answer: Answer, *, timeout_s: float = 60, headers: dict[str, str] | None = None) -> Answer:
    """Go on with a stream at another gateway, behind the last event seen; what comes is added to the same answer."""
    answer.errors.clear()  # how the first connection broke
    seen = {"Last-Event-ID": answer.last_event_id} if answer.last_event_id else {}
    path = f"/v1/streams/{answer.request_id}"
    await _exchange(answer, timeout_s, "GET", url + path, headers={**(headers or {}), **seen})
    return answer


async def _exchange(answer: Answer, timeout_s: float, method: str, url: str, **request: Any) -> None:
    """Make one HTTP exchange on a connection of its own."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.request(method, url, **request) as response,
        ):
            answer.status = response.status
            answer.request_id = answer.request_id or response.headers.get("x-request-id", "")
            if response.status != 200:
                answer.errors.append(_error_of(await response.text()))
            elif response.content_type == "text/event-stream":
                async for event_id, data in events_of(response):
                    _take(answer, event_id, data)
            else:
                answer.errors.append(f"not a stream: {await response.text()}")
    except TimeoutError:
        answer.errors.append("timeout")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        answer.errors.append(f"{type(error).__name__}: {error}")
    answer.ended_at = time.monotonic()


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """Id, which may be empty, and data of each event, as they come."""
    event_id = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if not line:
            event_id = ""
        elif line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            yield event_id, line.removeprefix("data: ")


def _take(answer: Answer, event_id: str, data: str) -> None:
    at = time.monotonic()
    if data == "[DONE]":
        answer.dones += 1
        return
    body = json.loads(data)
    if event_id:
        answer.last_event_id = event_id
    if "error" in body:
        answer.errors.append(body["error"])
        return
    answer.request_id = body.get("id", answer.request_id)
    answer.usage = body.get("usage") or answer.usage
    for choice in body["choices"]:
        delta = choice.get("delta", {})
        text, index = choice.get("text", delta.get("content")), choice["index"]
        if choice.get("logprobs"):
            answer.logprobs.append(choice["logprobs"])
        if delta.get("tool_calls"):
            answer.tool_calls.append(delta["tool_calls"])
        if text:
            answer.events.append(Event(at, event_id, text, index))
        if choice.get("finish_reason"):
            answer.finishes.append((index, choice["finish_reason"]))


def _error_of(text: str) -> Any:
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text
