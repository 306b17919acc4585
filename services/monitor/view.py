"""The monitor's face: the operator's page at /, kept fresh by /events; /status, /metrics, and /orders for its buttons.

No build step, nothing from elsewhere. Reading needs no key, as everything on loopback; orders need the token.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from services.monitor.dashboard.commands import Commands
from services.monitor.dashboard.figures import Figures, PlaceOrder, SeeFigures, SeeHappenings
from services.monitor.dashboard.page import PAGE, POLICY
from services.monitor.dashboard.parts import Snapshot
from services.monitor.dashboard.rates import Rates
from services.monitor.dashboard.snapshot import snapshot
from services.monitor.dashboard.stream import Live, Viewer
from shared.errors import LinkLost, Overloaded
from shared.health import PROMETHEUS_TEXT
from shared.pages import Pages
from shared.report import Report
from shared.tasks import Tasks
from shared.telemetry import Telemetry

SEND_S: Final = 10.0
"""A page that takes nothing for so long is gone."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class View:
    """Serves what `report` and `figures` return. `leading` says whether this monitor leads."""

    def __init__(
        self,
        instance: str,
        telemetry: Telemetry,
        report: Callable[[], Report],
        leading: Callable[[], bool],
        *,
        figures: SeeFigures = Figures,
        happenings: SeeHappenings = tuple,
        order: PlaceOrder | None = None,
        token: str = "",
    ) -> None:
        self._instance = instance
        self._telemetry = telemetry
        self._report = report
        self._leading = leading
        self._figures = figures
        self._rates = Rates()
        self._commands = Commands(order, token)
        self._live = Live(self._look, happenings)
        self._tasks = Tasks(f"{instance} dashboard")
        self._pages = Pages(
            [
                web.get("/", self._page),
                web.get("/events", self._events),
                web.get("/snapshot", self._snapshot),
                web.get("/status", self._status),
                web.get("/metrics", self._metrics),
                web.post("/orders", self._commands.answer),
            ]
        )

    async def open(self, host: str, port: int) -> str:
        """Listen; return the base URL. Raises LinkLost when the port cannot be had."""
        try:
            url = await self._pages.open(host, port)
        except OSError as error:
            raise LinkLost(f"cannot listen on {host}:{port} for the dashboard: {error.strerror}") from error
        _ = self._tasks.spawn(self._live.keep(), name=f"{self._instance} dashboard looks")
        return url

    async def close(self) -> None:
        """Stop listening; idempotent."""
        self._live.close()
        await self._tasks.close()
        await self._pages.close()

    def _look(self, now: float) -> Snapshot:
        figures, leading = self._figures(), self._leading()
        self._rates.see(figures, now)
        return snapshot(
            self._report(), figures, self._rates, self._instance, leading=leading, orders=self._commands.taken
        )

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html", headers=HEADERS)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({**self._report(), "monitor": self._instance, "leading": self._leading()})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.exposition(), headers={"Content-Type": PROMETHEUS_TEXT})

    async def _snapshot(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._live.whole())
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            viewer = self._live.admit(request.headers.get("Last-Event-ID", ""))
        except Overloaded as error:
            return web.Response(status=503, text=f"{error}\n", headers={"Retry-After": "10"})
        try:
            return await _show(request, viewer)
        finally:
            self._live.dismiss(viewer)


async def _show(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    answer.headers["X-Accel-Buffering"] = "no"  # or a proxy keeps the stream to itself
    await answer.prepare(request)
    while (frame := await viewer.next()) is not None:
        try:
            async with asyncio.timeout(SEND_S):
                await answer.write(frame)
        except (TimeoutError, ConnectionError):
            break
    return answer
