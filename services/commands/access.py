"""Where the cluster is that a command speaks to: the one configured, or the local one of the state directory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from services.local.probes import in_url, reachable
from services.local.state import NotRunning, directory, running
from shared.config import GatewaySettings, Nats, RedisSettings, load
from shared.messages import Role

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster. `user` names the inbox space that the NATS user may read."""

    nats: Nats
    redis: RedisSettings
    user: str
    drain_s: float
    url: str
    local: bool = False  # its NATS was started by a `baton up` of this machine


def find(config: Path | None, environ: Mapping[str, str]) -> Access:
    """Find the cluster. Raises ConfigError, or NotRunning when none is configured and none runs here."""
    settings = load(config, environ)
    nats, redis, user = settings.nats, settings.redis, settings.nats.user or OPERATOR
    is_local = not nats.url
    url = _url(settings.gateway)
    if Role.MONITOR in nats.credentials:
        user = Role.MONITOR
    if not nats.url or not redis.url:
        local = running(directory(environ))
        url = local.url
        if not redis.url:
            redis = replace(redis, url=local.redis)
        if not nats.url:
            nats, user = (
                replace(nats, url=local.nats_operator, prefix=local.nats_prefix, user="", password=""),
                OPERATOR,
            )
    return Access(nats, redis, user, settings.fleet.drain_s, url, is_local)


def gateway(config: Path | None, environ: Mapping[str, str]) -> str:
    """Return the URL of a gateway, with /v1: the local cluster's, else the one configured."""
    try:
        return running(directory(environ)).url
    except NotRunning:
        settings = load(config, environ)
        if config is None and not settings.nats.url:
            raise
        return _url(settings.gateway)


def _url(settings: GatewaySettings) -> str:
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{in_url(reachable(settings.host))}:{settings.port}/v1"
