"""A small HTTP server for pages and probes beside a service's own work; closes all it opened, whenever it is cut off.

Listens on loopback unless configured otherwise: it has no authentication.
"""

from collections.abc import Iterable
from typing import Final

from aiohttp import web

from shared.tasks import unbroken

CLOSE_S: Final = 1.0
"""For answers that are being written when it closes."""


class Pages:
    """Serves a few routes. `open` once, `close` always."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        app = web.Application()
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_S)

    async def open(self, host: str, port: int) -> str:
        """Listen; return the base URL. Port 0 takes any free one. Raises OSError when the port is taken."""
        await self._runner.setup()
        # asyncio loses the listening socket of a server whose start is cancelled
        await unbroken(web.TCPSite(self._runner, host, port).start())
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening; idempotent."""
        await self._runner.cleanup()
