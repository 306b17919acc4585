"""The client of Redis that every part of Baton uses: one server, the master that Sentinels name, or a Redis Cluster."""

from redis.asyncio import Redis

from shared.config.redis_url import is_several, parse
from shared.redis_connection import RepairedSSL, bounds, repair
from shared.redis_nodes import open_nodes_client

__all__ = ["RepairedSSL", "open_redis_client"]


def open_redis_client(url: str, timeout_s: float, *, max_connections: int | None = None) -> Redis:
    """Make a client whose calls answer or fail in a bounded time, with a RedisError; nothing is ever repeated."""
    if is_several(url):
        return open_nodes_client(parse(url), timeout_s, max_connections)
    return repair(Redis.from_url(url, max_connections=max_connections, **bounds(timeout_s)))
