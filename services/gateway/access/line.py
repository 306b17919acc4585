"""A line to Redis for what requests wait for: one connection, commands in the order they were given, sent in batches.

Owns that connection and the verdict that Redis is down. While it is, every command fails at once instead of after a
timeout, and only the line itself looks whether it is back. Nothing is repeated: a command that failed may have been
executed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError

from shared.config import RedisSettings
from shared.errors import BatonError, LinkLost, Overloaded
from shared.redis_client import open_redis_client
from shared.redis_nodes import ClusterConnection, renamed

BATCH: Final = 256
LONGEST: Final = 16_384
"""Commands that wait to be sent; beyond it they are refused."""
PATIENCE_S: Final = 0.5
"""A request waits no longer for one answer of Redis."""
ANSWERS_S: Final = 1.0
"""Nor does any of those sent together, for all answers before its own."""
IDLE_S: Final = 5.0
"""A line without work for so long asks Redis something of its own, so that no request finds it cut."""
RETRY_S: Final = 0.5
FLUSH_S: Final = 1.0

log = logging.getLogger(__name__)
Command = tuple[str | int | bytes, ...]
Question = tuple[Command, "asyncio.Future[Any]"]
"""A command and where its reply goes."""


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    commands: int = 0
    batches: int = 0
    failed: int = 0
    outages: int = 0


class Line:
    """See the module. `run` is a task of its owner."""

    def __init__(self, settings: RedisSettings, scripts: tuple[str, ...] = ()) -> None:
        self.counts = Counts()
        self.down = False
        self.on_up: Callable[[], None] = _nothing
        patience = min(PATIENCE_S, settings.timeout_s)
        self._client = open_redis_client(settings.url, patience)
        self._connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._rename = renamed if isinstance(self._connection, ClusterConnection) else None
        self._scripts = scripts
        self._waiting: list[Question] = []
        self._due = asyncio.Event()

    async def ask(self, *command: str | int | bytes) -> Any:  # noqa: ANN401  a reply
        """Send a command and return its reply. Raises LinkLost when there is none, Overloaded when too many wait."""
        return await self.send(*command)

    def send(self, *command: str | int | bytes) -> "asyncio.Future[Any]":
        """Send a command; its reply comes later. Raises as `ask` does."""
        if self.down:
            raise LinkLost("Redis does not answer now; try again in a moment")
        if len(self._waiting) >= LONGEST:
            raise Overloaded("too many requests wait for Redis")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        self._due.set()
        return reply

    async def run(self) -> None:
        """Send what is given, for ever."""
        while True:
            await self._work()
            self._due.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                try:
                    await self._exchange(batch)
                except (RedisError, OSError, TimeoutError) as error:
                    await self._lost(batch, error)
                except BaseException:
                    self._fail(batch, "this gateway is stopping")
                    raise

    async def _work(self) -> None:
        """Wait until there is something to send. A line that nobody has used yet is not even opened."""
        try:
            async with asyncio.timeout(IDLE_S if self.counts.batches else None):
                await self._due.wait()
        except TimeoutError:
            _ = self.send("PING")

    async def flushed(self, timeout_s: float = FLUSH_S) -> None:
        """Return once everything given before is answered, or after so long."""
        if not self.down:
            with contextlib.suppress(BatonError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.ask("PING")

    async def close(self) -> None:
        """Hang up; what still waits is refused."""
        self.down = True
        self._fail(self._waiting, "this gateway is stopping")
        self._waiting = []
        await self._connection.disconnect(nowait=True)
        await self._client.aclose()

    async def _exchange(self, batch: list[Question]) -> None:
        connection = self._connection
        if not connection.is_connected:
            await connection.connect()
            await self._load()
        self.counts.batches += 1
        self.counts.commands += len(batch)
        rename = self._rename
        packed = b"".join([pack(command if rename is None else rename(command)) for command, _ in batch])
        await connection.send_packed_command([packed], check_health=False)
        async with asyncio.timeout(ANSWERS_S):
            forgotten = await self._answers_to(batch)
        if forgotten:
            await self._load()
            self._waiting[:0] = forgotten

    async def _answers_to(self, batch: list[Question]) -> list[Question]:
        """Give everybody their answer; returns what Redis has not done, since it forgot the script."""
        connection = self._connection
        forgotten: list[Question] = []
        for command, reply in batch:
            try:
                answer = await connection.read_response()
            except NoScriptError:  # nothing was done: Redis was restarted or flushed its scripts
                forgotten.append((command, reply))
            except RedisError as error:
                if not connection.is_connected:
                    raise
                _refuse(reply, LinkLost(f"Redis refuses {command[0]!r}: {error}"))
            else:
                if not reply.done():
                    reply.set_result(answer)
        return forgotten

    async def _load(self) -> None:
        for script in self._scripts:
            await self._connection.send_command("SCRIPT", "LOAD", script)
            await self._connection.read_response()

    async def _lost(self, batch: list[Question], error: BaseException) -> None:
        """Refuse everything until Redis answers again."""
        self.down = True
        self.counts.outages += 1
        log.warning("Redis does not answer; keys and limits go by what this gateway knows", extra={"error": str(error)})
        self._fail(batch, str(error))
        self._fail(self._waiting, str(error))
        self._waiting = []
        await self._connection.disconnect(nowait=True)
        while not await self._answers():  # noqa: ASYNC110  nobody tells us when Redis is back
            await asyncio.sleep(RETRY_S)
        self.down = False
        log.info("Redis answers again")
        self.on_up()

    async def _answers(self) -> bool:
        try:
            await self._connection.connect()
            await self._load()
        except (RedisError, OSError, TimeoutError):
            await self._connection.disconnect(nowait=True)
            return False
        return True

    def _fail(self, batch: list[Question], why: str) -> None:
        for _, reply in batch:
            self.counts.failed += 1
            _refuse(reply, LinkLost(f"Redis does not answer: {why}"))


def pack(command: Sequence[str | int | bytes]) -> bytes:
    """Write a command as Redis reads it. The client library's own way costs as much as all the rest together."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


def _refuse(reply: "asyncio.Future[Any]", error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
        reply.exception()  # whoever still waits raises it


def _nothing() -> None:
    """Before there is anybody to tell."""
