"""A direct client of NATS: publishes, and reads its inbox up to the last reply."""

import asyncio
from typing import Any

import msgpack
from nats.aio.client import Client

from tests.contract.gateway.house import House

PATIENCE_S = 20.0


async def replies_to(house: House, client: Client, data: bytes) -> list[dict[str, Any]]:
    """Send bytes; all replies. That the last one comes is a part of every test."""
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox = client.new_inbox()

    async def keep(message: Any) -> None:
        waiting.put_nowait(msgpack.unpackb(message.data))

    subscription = await client.subscribe(inbox, cb=keep)
    await client.publish(house.subjects.requests("chat"), data, reply=inbox)
    got: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not got or not (got[-1].get("done") or "error" in got[-1]):
                got.append(await waiting.get())
    except TimeoutError:
        raise AssertionError(f"no last reply to {data[:500]!r}, after {got}") from None
    finally:
        await subscription.unsubscribe()
    return got
