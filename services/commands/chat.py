"""`baton chat`: a conversation over HTTP, streamed to the terminal. Needs nothing but the standard library.

Owns the history of the conversation. A turn that failed leaves no trace in it.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from shared.errors import BatonError, LinkLost

SILENCE_S = 120.0
"""How long to wait for the next token."""

Turn = dict[str, str]


class Gateway:
    """One gateway, by its URL (with /v1)."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._parts = urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise BatonError(f"{url} is no URL of a gateway; give one like http://127.0.0.1:8000/v1.")
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def scenarios(self) -> list[str]:
        """List what can be talked to."""
        with closing(self._connection()) as connection:
            answer = json.loads(self._send(connection, "GET", "/models", None).read())
        return [model["id"] for model in answer["data"]]

    def stream(self, scenario: str, turns: list[Turn], max_tokens: int | None = None) -> Iterator[str]:
        """Yield the pieces of the answer as they come."""
        body: dict[str, Any] = {"model": scenario, "messages": turns, "stream": True}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        with closing(self._connection()) as connection:
            response = self._send(connection, "POST", "/chat/completions", body)
            try:
                yield from _pieces(response)
            except (HTTPException, OSError) as error:
                raise LinkLost(f"The answer broke off: {str(error) or type(error).__name__}.") from error

    def _connection(self) -> HTTPConnection:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=SILENCE_S)

    def _send(self, connection: HTTPConnection, method: str, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, data, self._headers)
            response = connection.getresponse()
            if response.status == 200:  # noqa: PLR2004
                return response
            text = response.read(65_536)
        except (HTTPException, OSError) as error:
            raise LinkLost(f"The gateway at {self._parts.netloc} does not answer: {error}.") from error
        raise BatonError(f"The gateway answered {response.status}: {_reason(text)}")


def chat(gateway: Gateway, scenario: str | None, max_tokens: int | None = None) -> int:
    """Talk until the input ends. Returns the exit status."""
    names = gateway.scenarios()
    if not names:
        raise BatonError("The gateway serves no scenario.")
    chosen = scenario or names[0]
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401, PLC0415  makes input() editable

        sys.stdout.write(f"Talking to {chosen}. Ctrl-C stops an answer, Ctrl-D ends.\n")
    turns: list[Turn] = []
    failed = False
    for said in _inputs(terminal=terminal):
        turns.append({"role": "user", "content": said})
        try:
            turns.append({"role": "assistant", "content": _answer(gateway, chosen, turns, max_tokens)})
        except BatonError as error:
            turns.pop()
            failed = True
            sys.stderr.write(f"baton: {error}\n")
    return int(failed and not terminal)


def _answer(gateway: Gateway, scenario: str, turns: list[Turn], max_tokens: int | None) -> str:
    """Print the answer as it comes; what was shown before a Ctrl-C counts as said."""
    shown = ""
    try:
        for piece in gateway.stream(scenario, turns, max_tokens):
            shown += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" ...")
    sys.stdout.write("\n")
    sys.stdout.flush()
    return shown


def _inputs(*, terminal: bool) -> Iterator[str]:
    while True:
        try:
            said = input("> " if terminal else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            return
        if said:
            yield said


def _pieces(response: HTTPResponse) -> Iterator[str]:
    """Cut server-sent events into the text they carry."""
    for line in response:
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if name != b"data":
            continue
        if value == b"[DONE]":
            return
        event = json.loads(value)
        if "error" in event:
            raise BatonError(f"The answer failed: {event['error'].get('message', event['error'])}")
        for choice in event.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise LinkLost("The answer broke off before its end.")


def _reason(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace")[:200] or "nothing more"
