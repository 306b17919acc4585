"""Takes the pictures of docs/dashboard.md: `python -m tests.contract.monitor.screenshots [FOLDER]`. Needs Chromium."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.monitor.dashboard.figures import Order
from services.monitor.dashboard.stream import Live
from services.monitor.view import View
from shared.messages import Role, Told
from shared.telemetry import Telemetry
from tests.browser import Tab, browser
from tests.contract.monitor.scene import Scene, realistic

SHOTS = (("light", 1280, 1000), ("dark", 1280, 1000), ("light", 390, 844), ("dark", 390, 844))
TALLEST = 2100


@asynccontextmanager
async def shown(scene: Scene, *, token: str = "", placed: list[Order] | None = None) -> AsyncIterator[str]:
    """Serve a scene after five minutes of it, and yield the page's address."""

    async def order(given: Order) -> Told:
        if placed is not None:
            placed.append(given)
        return Told("monitor-1", f"understood: {type(given).__name__}", settled=True)

    view = View(
        "monitor-1", Telemetry(Role.MONITOR, "monitor-1"), scene.report, lambda: True,
        figures=scene.figures, happenings=scene.happenings, order=order, token=token,
    )  # fmt: skip
    view._live = Live(view._look, scene.happenings, clock=scene.clock, wall=lambda: time.time() + scene.skip)
    scene.skip -= 300
    for _ in range(150):
        view._live.look()
        scene.skip += 2
    try:
        yield await view.open("127.0.0.1", 0)
    finally:
        await view.close()


async def take(folder: Path) -> None:
    async with shown(realistic(), token="a-token") as url, browser() as tab:
        for scheme, width, height in SHOTS:
            scale = 1 if width > 600 else 1.5
            await tab.size(width, height, scale=scale)
            await tab.prefer(prefers_color_scheme=scheme)
            await tab.open(url)
            await ready(tab)
            tall = min(TALLEST, int(await tab.run("document.documentElement.scrollHeight")))
            await tab.size(width, max(height, tall), scale=scale)
            await ready(tab)
            name = folder / f"dashboard-{scheme}-{width}.png"
            name.write_bytes(smaller(await tab.picture()))
            print(name, name.stat().st_size, *tab.console)  # noqa: T201


def smaller(picture: bytes) -> bytes:
    """Reduce the colours to 256 where pngquant is installed; nobody sees it, and the file is a third."""
    if shutil.which("pngquant") is None:
        return picture
    return subprocess.run(["pngquant", "--speed", "1", "-"], input=picture, capture_output=True, check=True).stdout


async def ready(tab: Tab) -> None:
    """Wait until everything is drawn."""
    await tab.until("document.querySelectorAll('.tile').length > 0 && document.querySelector('.flows') !== null")
    await tab.run("new Promise(done => setTimeout(done, 700))")  # bars and links have found their lengths


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")))
