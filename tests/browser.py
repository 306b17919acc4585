"""A headless Chromium, driven over its DevTools protocol. Needs the binary (Debian: chromium) and nothing else."""

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CALL_S = 20.0


def chromium() -> str | None:
    """Find the binary; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page. `console` has its errors and warnings, the policy's refusals among them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console: list[str] = []
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._reading = asyncio.ensure_future(self._read())

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(CALL_S):
            said = await answer
        assert "error" not in said, said
        return said["result"]  # type: ignore[no-any-return]

    async def run(self, script: str) -> Any:
        """Return what an expression is, promises awaited."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait for an expression to be true."""
        async with asyncio.timeout(CALL_S):
            while not await self.run(script):  # noqa: ASYNC110  # the other side of the wire has no event of ours
                await asyncio.sleep(0.05)

    async def size(self, width: int, height: int, *, scale: float = 1) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def prefer(self, **features: str) -> None:
        """Set media features: prefers_color_scheme="dark"."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=wanted)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def picture(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is in view, or of the whole page."""
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(said["data"])

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Log.entryAdded":
                self.console.append(f"{said['params']['entry']['level']}: {said['params']['entry']['text']}")
            elif said["method"] == "Runtime.exceptionThrown":
                self.console.append(f"exception: {said['params']['exceptionDetails']}")


@asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """Start one with an empty profile, and end it."""
    binary = chromium()
    assert binary is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            binary,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *(
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
            ),
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(folder) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                    address = (await answer.json())["webSocketDebuggerUrl"]
                tab = Tab(await session.ws_connect(address, max_msg_size=0))
                try:
                    for domain in ("Page", "Runtime", "Log"):
                        await tab.call(f"{domain}.enable")
                    yield tab
                finally:
                    await tab.close()
        finally:
            process.terminate()
            await process.wait()


async def _port(path: Path) -> int:
    await until(lambda: _text(path) != "", "Chromium listens")
    return int(_text(path).splitlines()[0])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
