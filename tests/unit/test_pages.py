"""Pages listen, answer, and close whatever they have opened, wherever their opening was cut off."""

import asyncio

import aiohttp
from aiohttp import web

from shared.pages import Pages
from tests.descriptors import descriptors

TURNS = 12
"""Of the event loop; an opening takes fewer."""


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def test_pages_say_where_they_are_and_answer_there() -> None:
    pages = Pages([web.get("/", _hello)])
    url = await pages.open("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert (answer.status, await answer.text()) == (200, "hello")
    await pages.close()
    await pages.close()


async def test_an_opening_that_is_cut_off_leaves_no_socket_behind() -> None:
    outcomes = set()
    for turns in range(TURNS):
        before = descriptors()
        pages = Pages([web.get("/", _hello)])
        opening = asyncio.ensure_future(pages.open("127.0.0.1", 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        outcomes.add(opening.cancelled())
        await pages.close()
        assert descriptors() == before, f"cut off after {turns} turns"
    assert outcomes == {True, False}
