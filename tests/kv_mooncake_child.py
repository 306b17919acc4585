"""One end of a hand-off by Mooncake in a process of its own, to be stopped and killed by a test."""

import asyncio
import sys

from shared.kv.arena import Arena
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.messages import KvGrant, decode, encode
from tests.kv_ends import MIB, in_ms
from tests.kv_mooncake import settings

SIZE = 256 * MIB
"""Long enough under way to be met there."""


async def _push(grant: KvGrant) -> None:
    arena = Arena(SIZE)
    await Sender(arena, settings()).push(arena.reserve(SIZE), grant)


async def _receive() -> None:
    receiver = await Receiver.open(settings(), Arena(SIZE))
    deadline_ms = in_ms(60_000)
    push = receiver.expect("request#0", SIZE, deadline_ms)
    endpoints = receiver.endpoints[:1]
    print(encode(KvGrant("request", 0, "child", (1, 1), push.ticket, endpoints, deadline_ms)).hex(), flush=True)  # noqa: T201  to the test
    await push.received()


if __name__ == "__main__":
    if sys.argv[1] == "push":
        asyncio.run(_push(decode(bytes.fromhex(sys.argv[2]), KvGrant)))
    else:
        asyncio.run(_receive())
