"""One connection to Redis: the library's, repaired where Baton's promises need it, with the bounds all of ours share.

Written against redis-py 8.1 and uvloop 0.22; `tests/contract/test_redis_client.py` shows when they behave otherwise.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost

T = TypeVar("T")


def bounds(timeout_s: float) -> dict[str, Any]:
    """Options under which each call answers or fails in a bounded time, and nothing is ever repeated."""
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": Retry(NoBackoff(), 0)}


def repair(client: Redis) -> Redis:
    """Make a client use repaired connections; before its first call."""
    pool = client.connection_pool
    pool.connection_class = RepairedSSL if issubclass(pool.connection_class, SSLConnection) else RepairedConnection
    return client


async def _honest(call: Callable[[], Awaitable[T]]) -> T:
    """Call the library; a connection that was reset is an error of the connection.

    uvloop raises RuntimeError where something is written to, or read from, a transport that the peer's reset has closed
    already. The library knows OSError only, so what should read "Redis is away" would end whoever asked.
    """
    try:
        return await call()
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        raise ConnectionLost(f"the connection to Redis was reset: {error}") from error


class RepairedConnection(Connection):
    """redis.asyncio.connection.Connection, with these differences."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # the library's
        """See `_honest`."""
        await _honest(lambda: super(RepairedConnection, self).send_packed_command(*arguments, **options))

    async def read_response(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # the library's
        """See `_honest`."""
        return await _honest(lambda: super(RepairedConnection, self).read_response(*arguments, **options))


class RepairedSSL(RepairedConnection, SSLConnection):
    """The same over TLS."""
