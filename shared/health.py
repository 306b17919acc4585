"""The instance's own HTTP server: /healthz (alive), /readyz (a request would be served), /metrics."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from shared.pages import Pages
from shared.telemetry import Telemetry

PROMETHEUS_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Answers for one instance. `why_not_ready` gives the reason, or nothing when it is ready."""

    def __init__(self, telemetry: Telemetry, why_not_ready: Callable[[], str]) -> None:
        self._telemetry = telemetry
        self._why_not_ready = why_not_ready
        self._pages = Pages(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )

    async def open(self, host: str, port: int) -> str:
        """Listen; return the base URL. Port 0 takes any free one. Raises OSError when the port is taken."""
        return await self._pages.open(host, port)

    async def close(self) -> None:
        """Stop listening; idempotent."""
        await self._pages.close()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        why = self._why_not_ready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ready'}\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.exposition(), headers={"Content-Type": PROMETHEUS_TEXT})
