"""What is said on a connection where no route answers: whole answers in OpenAI's form. Quotes nothing that was sent."""

import secrets
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, LineTooLong

from services.gateway.refusals import error_object

MAX_HEADERS: Final = 100
MAX_LINE_BYTES: Final = 8190
_SERVER_FAULT: Final = 500


def plain_answer(status: int, words: str, *headers: str, code: str | None = None) -> bytes:
    """Make a whole HTTP answer, for where there is no request to answer; the connection closes after it."""
    reason = {400: "Bad Request", 408: "Request Timeout", 429: "Too Many Requests"}[status]
    kind = "server_overloaded" if status == 429 else "invalid_request_error"  # noqa: PLR2004
    body = _body(words, kind, code)
    head = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"x-request-id: {_new_id()}",
        "server: baton",
        *headers,
        "Connection: close",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def fault_answer(status: int, error: BaseException | None) -> web.Response:
    """Make the answer to what could not be read as a request, or where the server failed; the connection closes."""
    failed = status >= _SERVER_FAULT
    words, kind = ("the server failed", "server_error") if failed else (_fault(error), "invalid_request_error")
    answer = web.Response(status=status, body=_body(words, kind), content_type="application/json")
    answer.headers.update({"x-request-id": _new_id(), "server": "baton"})
    answer.force_close()
    return answer


def _body(words: str, kind: str, code: str | None = None) -> bytes:
    return msgspec.json.encode(error_object(words, kind, None, code))


def _new_id() -> str:
    return f"req-{secrets.token_hex(16)}"


def _fault(error: BaseException | None) -> str:
    """Say what was wrong, without what was sent."""
    if isinstance(error, LineTooLong):
        return f"the request is not acceptable HTTP: a line or header is longer than {MAX_LINE_BYTES} bytes"
    if isinstance(error, HttpProcessingError) and "Too many headers" in str(error):
        return f"the request is not acceptable HTTP: more than {MAX_HEADERS} headers"
    if isinstance(error, BadStatusLine):
        return "the request is not valid HTTP: its first line is none"
    return "the request is not valid HTTP"
