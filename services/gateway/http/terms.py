"""What is in force at the HTTP entrance now: settings, origins, certificate, bounds. Replaced as a whole at a reload.

Whoever needs a setting reads it here when it is needed, so that connections and streams live through a change.
"""

import logging
import resource
import ssl
from dataclasses import dataclass, field, replace
from typing import Final, Self

from services.gateway.http.access_log import check_place
from services.gateway.http.cors import Cors
from services.gateway.http.proxies import Proxies
from services.gateway.http.tls import open_tls
from shared.config import GatewaySettings
from shared.errors import ConfigError

MOST_CONNECTIONS: Final = 16_384
"""Unless configured: what a process carries without anybody having thought about it."""
OTHER_FILES: Final = 256
"""Kept for logs, libraries, NATS, Redis, the health port and connections that are being turned away."""
KEYS: Final = tuple(
    f"gateway.{name}"
    for name in (
        *("max_body_bytes", "max_body_total", "max_connections", "max_connections_per_peer", "head_timeout_s"),
        "trusted_proxies",
        *(
            "body_timeout_s",
            "body_min_rate",
            "keep_alive_s",
            "send_timeout_s",
            "max_unsent_bytes",
            "max_unsent_total",
            "cors_origins",
            "tls_cert",
        ),
        *("tls_key", "tls_client_ca", "access_log"),
    )
)
"""The keys that change without a restart."""

log = logging.getLogger(__name__)


@dataclass
class Terms:
    """Of one gateway; the one object that all parts of the entrance share."""

    settings: GatewaySettings
    cors: Cors
    tls: ssl.SSLContext | None
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def read(cls, settings: GatewaySettings) -> Self:
        """Open what the settings name and fit the bounds to the machine. Raises ConfigError."""
        check_place(settings.access_log)
        proxies = Proxies(settings.trusted_proxies)
        return cls(_fitted(settings), Cors(settings.cors_origins), open_tls(settings), proxies)

    def take(self, other: Self) -> None:
        """Put other terms in force."""
        self.settings, self.cors, self.tls, self.proxies = other.settings, other.cors, other.tls, other.proxies


def raise_file_limit() -> int:
    """Let this process open as many files as it may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    if soft == resource.RLIM_INFINITY:
        return hard
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays", extra={"limit": soft, "error": str(error)})
            return soft
    return hard


def _fitted(settings: GatewaySettings) -> GatewaySettings:
    files = raise_file_limit()
    room = files - OTHER_FILES
    wanted = settings.max_connections or max(1, min(MOST_CONNECTIONS, room))
    if wanted > room and settings.max_connections:
        why = f"gateway.max_connections is {wanted}, but this process may open {files} files, {OTHER_FILES} for itself"
        how = f"raise the limit (ulimit -n, LimitNOFILE=, --ulimit nofile=) or set at most {max(1, room)}"
        raise ConfigError([f"{why}; {how}"])
    per_peer = settings.max_connections_per_peer or max(1, wanted // 2)
    log.info("connections", extra={"most": wanted, "most_per_peer": per_peer, "open_files": files})
    return replace(settings, max_connections=wanted, max_connections_per_peer=min(per_peer, wanted))
