"""Tenants: who may ask, and how much. The keys themselves are in Redis; see `baton keys`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from shared.config.checks import SECONDS, url
from shared.config.reader import setting
from shared.subjects import SCENARIO_NAME

DEFAULT_TENANT: Final = "default"
"""Its limits hold, each for itself, for every tenant that has no table of its own; `gateway.api_keys` belong to it."""
ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_MOST_PER_MINUTE: Final = 100_000_000  # shared.policy.limits says why
_RATE: Final = (0, _MOST_PER_MINUTE)


@dataclass(frozen=True)
class TenantSettings:
    """What one tenant may use. 0: no such limit."""

    requests_per_minute: int = setting(0, between=_RATE)
    tokens_per_minute: int = setting(0, between=_RATE)  # prompt and answer together
    concurrent_streams: int = setting(0, between=(0, 1_000_000))  # choices open at a time, waiting ones included
    answer_tokens: int = setting(1024, between=(1, _MOST_PER_MINUTE))  # set aside where a request names no max_tokens
    priority: int = setting(0, between=(-1000, 1000))  # added to that of each request
    weight: float = setting(1.0, between=(0.01, 1000.0))  # its share of what is contended, against other tenants'
    scenarios: tuple[str, ...] = setting(())  # that its keys may use; none: all


@dataclass(frozen=True)
class JwtSettings:
    """Tokens of an identity provider. Without a source of keys no token is taken."""

    jwks_url: str = setting("", check=url("https", "http"))
    key_file: str = setting("")  # PEM or JWKS
    issuer: str = setting("")
    audience: str = setting("")
    algorithms: tuple[str, ...] = setting(("RS256", "ES256"))
    tenant_claim: str = setting("sub")
    scenarios_claim: str = setting("")  # empty: a token may use what its tenant may
    leeway_s: float = setting(30.0, between=(0.0, 600.0))  # for clocks that differ
    timeout_s: float = setting(3.0, between=SECONDS)  # of one fetch of keys
    refresh_s: float = setting(600.0, between=(1.0, 86_400.0))  # between two fetches
    allow_http: bool = setting(default=False)  # jwks_url may be plain http beyond loopback

    @property
    def configured(self) -> bool:
        """Whether tokens are taken."""
        return bool(self.jwks_url or self.key_file)

    def faults(self) -> list[str]:
        """Name what does not fit together."""
        if not self.configured:
            return []
        faults = []
        if self.jwks_url and self.key_file:
            faults.append("gateway.jwt: give jwks_url or key_file, not both")
        faults += [
            f"gateway.jwt.{name} is missing; without it any token of the provider would be taken"
            for name in ("issuer", "audience")
            if not getattr(self, name)
        ]
        if wrong := [name for name in self.algorithms if name not in ASYMMETRIC]:
            faults.append(f"gateway.jwt.algorithms: {', '.join(wrong)} is none of {', '.join(ASYMMETRIC)}")
        if not self.algorithms:
            faults.append("gateway.jwt.algorithms is empty; name at least one")
        if self.jwks_url.startswith("http://") and not (self.allow_http or _loopback(self.jwks_url)):
            faults.append("gateway.jwt.jwks_url is plain http, so anyone on the way could put keys in; use https")
        return faults


def client_faults(names: Collection[str]) -> list[str]:
    """Name the clients of NATS that cannot be called so."""
    wrong = [name for name in names if not SCENARIO_NAME.match(name)]
    return [f"nats.clients: {name!r} must be lower-case letters, digits and inner hyphens" for name in wrong]


def tenancy_faults(tokens: JwtSettings, tenants: Mapping[str, TenantSettings], scenarios: Collection[str]) -> list[str]:
    """Name what does not fit together between tenants, tokens and scenarios."""
    return tokens.faults() + [
        f"tenant.{tenant}.scenarios: there is no [scenario.{scenario}]"
        for tenant, settings in tenants.items()
        for scenario in settings.scenarios
        if scenario not in scenarios
    ]


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
