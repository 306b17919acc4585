"""The entrance: how it listens, and how much it takes in."""

from dataclasses import dataclass

from shared.config.checks import ANY, MIB, PORT, SECONDS
from shared.config.reader import setting


@dataclass(frozen=True)
class GatewaySettings:
    """The HTTP and NATS entrance."""

    host: str = setting("127.0.0.1")
    port: int = setting(8000, between=PORT)
    api_keys: tuple[str, ...] = setting((), secret=True)  # empty: no key is asked for
    max_body_bytes: int = setting(8 * MIB, between=(1024, 1 << 62))
    max_streams: int = setting(4096, between=ANY)  # open requests, waiting ones included
    max_waiting: int = setting(1024, between=(0, 1 << 62))  # requests that no prefill has taken yet
    absent_wait_s: float = setting(10.0, between=(0.0, 3600.0))  # requests wait so long where there is no worker at all
    send_timeout_s: float = setting(30.0, between=SECONDS)  # a client that reads nothing for so long is cut
    max_unsent_bytes: int = setting(1 * MIB, between=(4096, 1 << 62))  # buffered for one client
