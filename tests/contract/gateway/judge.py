"""A moderation service: a real server that flags what holds a word, and can be slow, broken or gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web


class Judge:
    """What it was asked, and how it behaves."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[list[str]] = []
        self.at_once = self.most = 0
        self.calm()

    def calm(self) -> None:
        self.asked.clear()
        self.most = 0
        self.waits_s = 0.0
        self.answers: tuple[int, bytes] | None = None  # instead of a judgment
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert request.headers["authorization"] == "Bearer judge-key"
        assert body["model"] == "strict"
        self.asked.append(body["input"])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.waits_s)
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        if self.answers is not None:
            return web.Response(status=self.answers[0], body=self.answers[1])
        results = [{"flagged": "evil" in text, "categories": {"villainy": "evil" in text}} for text in body["input"]]
        return web.json_response({"id": "modr-1", "model": "strict", "results": results})


@contextlib.asynccontextmanager
async def open_judge() -> AsyncIterator[Judge]:
    judge = Judge()
    app = web.Application()
    app.router.add_post("/v1/moderations", judge.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    judge.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/moderations"
    try:
        yield judge
    finally:
        await runner.cleanup()
