"""One end of a hand-off as a process of its own, which stops halfway through a push and waits to be killed."""

import asyncio
import sys
import time
from typing import NoReturn

from shared.config import KvSettings
from shared.kv import sender, shm, tcp
from shared.kv.arena import Arena
from shared.kv.link import Link
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.messages import KvGrant, decode, encode

SIZE = 2 << 20


def _halfway(*_: object) -> NoReturn:
    print("halfway", flush=True)  # noqa: T201  to the test that started us
    while True:
        time.sleep(60)


def _send_half(link: Link, view: memoryview) -> NoReturn:
    link.put(view[: len(view) // 2])
    _halfway()


async def _push(grant: KvGrant) -> None:
    tcp.send, sender.checksum = _send_half, _halfway  # type: ignore[assignment]
    arena = Arena(SIZE)
    await Sender(arena, KvSettings()).push(arena.reserve(SIZE), grant)


async def _receive(transport: str) -> None:
    tcp.receive, shm.PeerMemory.copy = _halfway, _halfway  # type: ignore[assignment]
    receiver = await Receiver.open(KvSettings(), Arena(SIZE))
    deadline_ms = int(time.time() * 1000) + 60_000
    push = receiver.expect("request#0", SIZE, deadline_ms)
    endpoints = [one for one in receiver.endpoints if one.transport == transport]
    print(encode(KvGrant("request", 0, "child", (1, 1), push.ticket, endpoints, deadline_ms)).hex(), flush=True)  # noqa: T201
    await push.received()


if __name__ == "__main__":
    if sys.argv[1] == "push":
        asyncio.run(_push(decode(bytes.fromhex(sys.argv[2]), KvGrant)))
    else:
        asyncio.run(_receive(sys.argv[2]))
