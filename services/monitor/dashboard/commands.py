"""The orders that come from the page's buttons: who may give them, what they say, what is answered.

An order changes the fleet, so it needs the token, comes from this page's own origin, and is JSON, which no form of
another page can send.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from services.monitor.dashboard.figures import DrainOrder, Order, PlaceOrder
from shared.errors import BadRequest, BatonError, NoCapacity, Unavailable
from shared.messages import ExplainOrder, Rejected, ScaleOrder, UpgradeOrder
from shared.subjects import INSTANCE_NAME, SCENARIO_NAME

MOST_BYTES: Final = 16_384
MOST_ORDERS: Final = 8
"""At once."""
ORDER_S: Final = 30.0
WRONG_S: Final = 0.5
"""Whoever shows a wrong token waits so long for the answer."""
KINDS: Final[Mapping[str, tuple[type, tuple[str, ...]]]] = {
    "scale": (ScaleOrder, ScaleOrder.__struct_fields__),
    "upgrade": (UpgradeOrder, UpgradeOrder.__struct_fields__),
    "explain": (ExplainOrder, ExplainOrder.__struct_fields__),
    "drain": (DrainOrder, ("instance",)),
}
READ_ONLY: Final = (
    "This monitor takes no orders from the page: set monitor.token (BATON_MONITOR__TOKEN) at every monitor and start"
    " them again, or use the baton command."
)

log = logging.getLogger(__name__)


class Refused(Exception):
    """Raised when an order is not even looked at; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Commands:
    """Answers POST /orders. Without `order` or a token it refuses all."""

    def __init__(self, order: PlaceOrder | None, token: str) -> None:
        self._order = order
        self._token = token
        self._running = 0

    @property
    def taken(self) -> bool:
        """Whether there is anything to press."""
        return self._order is not None and bool(self._token)

    async def answer(self, request: web.Request) -> web.Response:
        """Check, carry out, and say what became of it."""
        try:
            place = await self._allowed(request)
            order = read(await _body(request))
        except Refused as refusal:
            return _no(refusal.status, str(refusal))
        except BadRequest as error:
            return _no(400, str(error))
        if self._running >= MOST_ORDERS:
            return _no(503, "Other orders are being carried out; try again in a moment.")
        self._running += 1
        try:
            return await self._carry_out(place, order)
        finally:
            self._running -= 1

    async def _allowed(self, request: web.Request) -> PlaceOrder:
        if self._order is None or not self._token:
            raise Refused(403, READ_ONLY)
        if stranger(request.headers, request.host):
            raise Refused(403, "Orders are taken from this dashboard's own page only, not from another site's.")
        if request.content_type != "application/json":
            raise Refused(415, "An order is JSON: send it with Content-Type: application/json.")
        if not right(request.headers.get("Authorization", ""), self._token):
            await asyncio.sleep(WRONG_S)
            raise Refused(401, "The token is wrong: it is monitor.token of this monitor's configuration.")
        return self._order

    async def _carry_out(self, place: PlaceOrder, order: Order) -> web.Response:
        log.info("an order from the page", extra={"order": repr(order)})
        try:
            async with asyncio.timeout(ORDER_S):
                answer = await place(order)
        except TimeoutError:
            return _no(504, f"No answer within {ORDER_S:.0f} s; the order may be carried out all the same.")
        except NoCapacity as error:  # nobody listens
            if isinstance(order, DrainOrder):
                return _no(409, f"No instance of the id {order.instance} answers.")
            return _no(503, str(error))
        except BatonError as error:
            return _no(503 if isinstance(error, Unavailable) else 409, str(error))
        if isinstance(answer, Rejected):
            return _no(409, answer.message)
        return web.json_response(
            {
                "text": answer.text,
                "settled": answer.settled,
                "revision": answer.revision,
                "monitor": answer.instance,
            }
        )


def stranger(headers: Mapping[str, str], host: str) -> bool:
    """Whether another site's page makes the browser ask. What is no browser says nothing of a site."""
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def right(authorization: str, token: str) -> bool:
    """Compare a header with the token in a time that does not tell how much of it was right."""
    scheme, _, given = authorization.partition(" ")
    same = secrets.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"


def read(body: bytes) -> Order:
    """Read an order. Raises BadRequest with what is wrong with it."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"An order is a JSON object: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest("An order is a JSON object")
    name = data.pop("order", None)
    if not isinstance(name, str) or name not in KINDS:
        raise BadRequest(f"`order` is one of {', '.join(KINDS)}")
    kind, known = KINDS[name]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise BadRequest(f"{name} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    try:
        order: Order = msgspec.convert({**data, "t": f"order.{name}"}, type=kind)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {error}") from error
    _check_names(order)
    return order


def _check_names(order: Order) -> None:
    if isinstance(order, DrainOrder):
        if not INSTANCE_NAME.match(order.instance):
            raise BadRequest("`instance` is the id of an instance")
    elif not SCENARIO_NAME.match(order.scenario):
        raise BadRequest("`scenario` is the name of a scenario")


async def _body(request: web.Request) -> bytes:
    """Read no more than an order has."""
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MOST_BYTES:
            raise Refused(413, f"An order has at most {MOST_BYTES} bytes.")
    return body


def _no(status: int, text: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == web.HTTPUnauthorized.status_code else None
    return web.json_response({"error": text}, status=status, headers=headers)
