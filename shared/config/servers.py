"""The servers that a cluster stands on: NATS and Redis."""

from dataclasses import dataclass, field

from shared.config.checks import MIB, SECONDS, prefix, url
from shared.config.reader import setting


@dataclass(frozen=True)
class Credentials:
    """What one role signs in with."""

    user: str
    password: str = field(repr=False, metadata={"secret": True})


@dataclass(frozen=True)
class Nats:
    """The connection to NATS. An empty url means a server started by `baton up`."""

    url: str = setting("", check=url("nats", "tls", "ws", "wss"), secret=True)  # may hold user and password
    user: str = setting("")
    password: str = setting("", secret=True)
    credentials: dict[str, Credentials] = field(default_factory=dict)  # by role; wins over user and password
    prefix: str = setting("baton", check=prefix)  # of every subject
    clients: tuple[str, ...] = setting(())  # that get a user of their own at a server started by `baton up`
    connect_timeout_s: float = setting(30.0, between=SECONDS)  # at start; afterwards it reconnects for ever
    drain_timeout_s: float = setting(3.0, between=SECONDS)
    max_pending_bytes: int = setting(
        8 * MIB, between=(65_536, 1 << 62)
    )  # unsent bytes above which publishing is refused

    def credentials_for(self, role: str) -> tuple[str, str]:
        """User and password of a role; both empty where the url holds them or the server asks for none."""
        own = self.credentials.get(role)
        return (own.user, own.password) if own else (self.user, self.password)


@dataclass(frozen=True)
class RedisSettings:
    """The connection to Redis or Valkey. An empty url means a server started by `baton up`."""

    url: str = setting("", check=url("redis", "rediss"), secret=True)  # may hold user and password
    timeout_s: float = setting(2.0, between=SECONDS)  # of one command; leases use ttl / 4
