"""The entrance: how it listens, and how much it takes in."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final

from shared.config.checks import ANY, MIB, PORT, SECONDS
from shared.config.reader import setting
from shared.config.tenants import JwtSettings

ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", re.IGNORECASE)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True)
class GatewaySettings:
    """The HTTP and NATS entrance."""

    host: str = setting("127.0.0.1")
    port: int = setting(8000, between=PORT)
    auth: str = setting("auto", choices=("auto", "none", "keys"))  # auto: once there is any key, or jwt is set
    api_keys: tuple[str, ...] = setting((), secret=True)  # of the tenant `default`; more with `baton keys create`
    key_stale_s: float = setting(3600.0, between=SECONDS)  # a key goes on so long while Redis does not answer
    jwt: JwtSettings = field(default_factory=JwtSettings)
    audit_file: str = setting("")  # empty: the audit log goes where the other logs go
    max_body_bytes: int = setting(16 * MIB, between=(1024, 1 << 62))
    max_body_total: int = setting(256 * MIB, between=(1024, 1 << 62))  # of all bodies that are being read
    max_streams: int = setting(4096, between=ANY)  # open requests, waiting ones included
    max_waiting: int = setting(1024, between=(0, 1 << 62))  # requests that no prefill has taken yet
    absent_wait_s: float = setting(10.0, between=(0.0, 3600.0))  # requests wait so long where there is no worker at all
    send_timeout_s: float = setting(30.0, between=SECONDS)  # a client that reads nothing for so long is cut
    max_unsent_bytes: int = setting(1 * MIB, between=(4096, 1 << 62))  # buffered for one client
    max_unsent_total: int = setting(256 * MIB, between=(4096, 1 << 62))  # for all: who takes the least is cut
    reuse_port: bool = setting(False)  # several gateways of this machine listen on the same port
    max_connections: int = setting(0, between=(0, 1 << 62))  # 0: as many as open files allow, 16384 at most
    max_connections_per_peer: int = setting(0, between=(0, 1 << 62))  # of one client address; 0: half of them
    trusted_proxies: tuple[str, ...] = setting(())  # addresses and networks whose X-Forwarded-For is believed
    head_timeout_s: float = setting(20.0, between=SECONDS)  # for a request's head, from its first byte or the accept
    body_timeout_s: float = setting(120.0, between=SECONDS)  # for a whole body
    body_min_rate: int = setting(16_384, between=ANY)  # bytes a second, on average, once ten seconds are over
    keep_alive_s: float = setting(75.0, between=SECONDS)  # a connection between two requests
    cors_origins: tuple[str, ...] = setting(())  # that browsers may call from; "*": any
    tls_cert: str = setting("")  # PEM file, with the chain; empty: plain HTTP
    tls_key: str = setting("")  # PEM file
    tls_client_ca: str = setting("")  # PEM file; when set, clients must show a certificate signed by it
    access_log: str = setting("on")  # on: with the other logs; off; or a file


def edge_faults(settings: GatewaySettings) -> list[str]:
    """Say what does not fit together at the HTTP entrance."""
    faults = []
    if bool(settings.tls_cert) != bool(settings.tls_key):
        faults.append("gateway.tls_cert and gateway.tls_key belong together; set both or neither")
    if settings.tls_client_ca and not settings.tls_cert:
        faults.append("gateway.tls_client_ca needs gateway.tls_cert and gateway.tls_key")
    if settings.max_body_total < settings.max_body_bytes:
        faults.append("gateway.max_body_total must hold at least one body of gateway.max_body_bytes")
    if 0 < settings.max_connections < settings.max_connections_per_peer:
        faults.append("gateway.max_connections_per_peer must not be above gateway.max_connections")
    strangers = [origin for origin in settings.cors_origins if origin != "*" and not ORIGIN.fullmatch(origin)]
    faults += [f"gateway.cors_origins: {it!r} is no origin; write https://host:port" for it in strangers]
    return faults + [fault for text in settings.trusted_proxies if (fault := _proxy_fault(text))]


def _proxy_fault(text: str) -> str:
    """Say what is wrong with an entry of `trusted_proxies`."""
    where = f"gateway.trusted_proxies: {text!r}"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{where} is no address or network; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
    if "%" in text:
        return f"{where} names a zone; leave it out"
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return f"{where} is IPv4 written as IPv6; write it as IPv4"
    if ipaddress.ip_interface(text).ip != network.network_address:
        return f"{where} has bits beyond its prefix; write {network}, or the address alone"
    return ""
