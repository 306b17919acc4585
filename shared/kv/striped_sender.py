"""A payload pushed in parts, over several TCP connections at once: the sender's side.

Owns the order: the first connection opens the push, and once the receiver has said GO the others join it. Whichever of
them fails ends all; when `push` returns or raises, no thread reads the payload any more. Must not know where
connections come from.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from shared.errors import KvRefused
from shared.kv import tcp
from shared.kv.link import Link, NotBegun, PeerLeft
from shared.kv.stripes import part
from shared.kv.wire import Kind, Opening
from shared.tasks import unbroken

LAST_WORD_S: Final = 1.0
"""After one connection broke, how long the others may take to hear why: the receiver ends them all."""

Send = Callable[[Link], bytes]
"""Sends a payload in a thread; its checksum."""
Carry = Callable[[Opening, Send], Coroutine[Any, Any, None]]
"""Takes a connection to the receiver through one exchange, from the opening to DONE."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A payload as it is pushed."""

    view: memoryview
    number: int

    def send(self, index: int, begins: Callable[[], object], link: Link) -> bytes:
        """In a thread: send one part, after saying that it begins; its checksum."""
        begins()
        start, stop = part(len(self.view), self.number, index)
        with self.view[start:stop] as mine:
            return tcp.send(link, mine)


async def push(carry: Carry, opening: Opening, parts: Parts) -> None:
    """Push the payload. Raises as `carry` does; NotBegun only where the first connection met nobody."""
    begun = asyncio.Event()
    begin = partial(asyncio.get_running_loop().call_soon_threadsafe, begun.set)
    first = replace(opening, kind=Kind.STRIPED, offset=parts.number)
    works = [carry(first, partial(parts.send, 0, begin))]
    works += [_join(begun, carry, opening, parts, index) for index in range(1, parts.number)]
    tasks = [asyncio.create_task(work, name="kv part") for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        await asyncio.wait(tasks, timeout=LAST_WORD_S)
    finally:
        await unbroken(_end(tasks))
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise next((error for error in errors if isinstance(error, KvRefused)), errors[0])  # a refusal says most
    if any(task.cancelled() for task in tasks):
        raise PeerLeft("a part of the push was cut")


async def _join(begun: asyncio.Event, carry: Carry, opening: Opening, parts: Parts, index: int) -> None:
    await begun.wait()
    try:
        await carry(replace(opening, kind=Kind.STRIPE, offset=index), partial(parts.send, index, begun.is_set))
    except NotBegun as error:  # the push itself has
        raise PeerLeft(f"a further connection could not be made: {error}") from error


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
