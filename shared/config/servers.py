"""The servers that a cluster stands on: NATS and Redis."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shared.config.checks import MIB, SECONDS, prefix, redis_url, urls
from shared.config.reader import setting


@dataclass(frozen=True)
class Credentials:
    """What one role signs in with."""

    user: str
    password: str = field(repr=False, metadata={"secret": True})


@dataclass(frozen=True)
class Nats:
    """The connection to NATS: one server or several of a cluster. An empty url means one started by `baton up`."""

    url: str = setting("", check=urls("nats", "tls", "ws", "wss"), secret=True)  # may hold user and password
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

    @property
    def servers(self) -> list[str]:
        """One URL for each server that `url` names."""
        return [one.strip() for one in self.url.split(",") if one.strip()]

    def credentials_for(self, role: str) -> tuple[str, str]:
        """User and password of a role; both empty where the server asks for none.

        What one URL holds is for all: a client also learns of servers of the cluster that no URL names.
        """
        own = self.credentials.get(role)
        if own is not None:
            return own.user, own.password
        if not self.user:
            parts = [urlsplit(one) for one in self.servers]
            signed = next((part for part in parts if part.username and part.password), None)
            if signed is not None:
                return unquote(signed.username or ""), unquote(signed.password or "")
        return self.user, self.password


@dataclass(frozen=True)
class RedisSettings:
    """The connection to Redis or Valkey, see `redis_url`. An empty url means a server started by `baton up`."""

    url: str = setting("", check=redis_url, secret=True)  # may hold user and password
    timeout_s: float = setting(2.0, between=SECONDS)  # of one command; leases use ttl / 4
