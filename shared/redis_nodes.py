"""The client of a Redis that moves: of the master that Sentinels name, or of the cluster's node that has Baton's keys.

All of Baton's keys lie at one server, since scripts change several of them at once. Who that is, is asked whenever a
connection is made; a server that is it no longer loses its connections, and the call fails as it does where Redis is
away. Nothing is repeated here either.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as RedisTimeout

from shared import keys
from shared.config.redis_url import RedisNodes
from shared.redis_connection import RepairedConnection, RepairedSSL, bounds, repair

SLOT: Final = key_slot(keys.ROOT_IN_CLUSTER.encode())
_ROOT: Final = keys.ROOT.encode()
_ROOT_IN_CLUSTER: Final = keys.ROOT_IN_CLUSTER.encode()
_SIGNING_IN: Final = {"AUTH", "HELLO", "CLIENT"}
"""Their arguments are never names of keys, and may be passwords."""


class MovingConnection(RepairedConnection, SentinelManagedConnection):
    """A repaired connection that asks where to connect to."""

    async def connect(self) -> None:
        """Ask and connect, both within the time that one connection may take."""
        try:
            async with asyncio.timeout(self.socket_connect_timeout):
                await super().connect()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise RedisTimeout("nobody said in time which Redis takes writes") from error


class MovingSSL(MovingConnection, RepairedSSL, SentinelManagedSSLConnection):
    """The same over TLS."""


class ClusterConnection(MovingConnection):
    """A connection to the one node of a Redis Cluster that has Baton's keys, which are named differently there."""

    def pack_command(self, *arguments: Any) -> list[bytes]:  # noqa: ANN401  # the library's
        """Write a command as the node reads it."""
        packed: list[bytes] = super().pack_command(*renamed(arguments))
        return packed

    async def read_response(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # the library's
        """Read an answer; one that sends us elsewhere ends the connection, so that the next one asks again."""
        try:
            return _named_back(await super().read_response(*arguments, **options))
        except (AskError, ClusterDownError, TryAgainError) as error:  # AskError is MovedError's parent
            await self.disconnect()
            raise ConnectionLost(f"Baton's keys are not at this Redis now: {error}") from error


class ClusterSSL(ClusterConnection, MovingSSL):
    """The same over TLS."""


class Finder(Protocol):
    """Whom the library's pool asks for the address."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Name the server that takes writes. Raises MasterNotFoundError."""
        ...

    async def aclose(self) -> None:
        """Hang up."""
        ...


class SlotFinder:
    """Asks the nodes of a Redis Cluster which of them has the slot of Baton's keys."""

    def __init__(self, nodes: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        self._nodes = [(host, repair(Redis(host=host, port=port, **options))) for host, port in nodes]

    async def discover_master(self, service_name: str) -> tuple[str, int]:  # noqa: ARG002  a cluster has no name
        """See Finder."""
        faults: list[str] = []
        for place, (host, node) in enumerate(self._nodes):
            try:
                found = _owner(await node.execute_command("CLUSTER", "SLOTS"), host)  # type: ignore[no-untyped-call]
            except RedisError as error:
                faults.append(str(error))
                continue
            if found is not None:
                self._nodes.insert(0, self._nodes.pop(place))  # who answers is asked first
                return found
            faults.append(f"{host} knows no owner of slot {SLOT}")
        raise MasterNotFoundError(f"no node of the Redis Cluster says who has Baton's keys: {'; '.join(faults)}")

    async def aclose(self) -> None:
        """See Finder."""
        for _, node in self._nodes:
            await node.aclose()


class MovingPool(SentinelConnectionPool):
    """The library's pool, which also hangs up on those whom it asks."""

    async def aclose(self) -> None:
        """Hang up everywhere."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def open_nodes_client(nodes: RedisNodes, timeout_s: float, max_connections: int | None) -> Redis:
    """Make the client; see `shared.redis_client.open_redis_client`."""
    share = timeout_s / (len(nodes.nodes) + 1)  # who is silent must leave time to ask the others
    tls: dict[str, Any] = {"ssl_ca_certs": nodes.ssl_ca_certs or None} if nodes.tls else {}
    signed = {"username": nodes.user or None, "password": nodes.password or None}
    asking = {**bounds(share), **tls, **({"ssl": True} if nodes.tls else {})}
    finder: Finder
    connection: type[MovingConnection]
    if nodes.kind == "sentinel":
        own = {"username": nodes.sentinel_user or None, "password": nodes.sentinel_password or None}
        finder = Sentinel(list(nodes.nodes), sentinel_kwargs={**asking, **own})  # type: ignore[no-untyped-call]
        for one in finder.sentinels:
            _ = repair(one)  # the same client
        connection = MovingSSL if nodes.tls else MovingConnection
    else:
        finder = SlotFinder(nodes.nodes, {**asking, **signed})
        connection = ClusterSSL if nodes.tls else ClusterConnection
    pool = MovingPool(  # type: ignore[no-untyped-call]
        nodes.service,
        finder,
        connection_class=connection,
        max_connections=max_connections,
        **({"db": nodes.db} if nodes.db else {}),
        **tls,
        **signed,
        **bounds(timeout_s),
    )
    return Redis.from_pool(pool)


def renamed(command: Sequence[Any]) -> Sequence[Any]:
    """Name keys so that they all have one slot; values never begin as keys do."""
    if str(command[0]).upper() in _SIGNING_IN:
        return command
    return [_in_cluster(part) for part in command]


def _in_cluster(part: Any) -> Any:  # noqa: ANN401  an argument of whatever kind
    if isinstance(part, str) and part.startswith(keys.ROOT):
        return keys.ROOT_IN_CLUSTER + part[len(keys.ROOT) :]
    if isinstance(part, bytes) and part.startswith(_ROOT):
        return _ROOT_IN_CLUSTER + part[len(_ROOT) :]
    return part


def _named_back(answer: Any) -> Any:  # noqa: ANN401  of whatever kind
    if isinstance(answer, bytes) and answer.startswith(_ROOT_IN_CLUSTER):
        return _ROOT + answer[len(_ROOT_IN_CLUSTER) :]
    if isinstance(answer, list):
        return [_named_back(part) for part in answer]
    if isinstance(answer, dict):
        return {_named_back(name): _named_back(part) for name, part in answer.items()}
    return answer


def _owner(ranges: Any, asked: str) -> tuple[str, int] | None:  # noqa: ANN401  an answer to CLUSTER SLOTS
    """Find the master of our slot; an empty host means the node that was asked."""
    for first, last, master, *_ in ranges:
        if int(first) <= SLOT <= int(last):
            host = master[0].decode() if isinstance(master[0], bytes) else master[0]
            return host or asked, int(master[1])
    return None
