"""What the configuration says of tenants and static keys: looked up per request, swapped whole at a reload. Pure."""

import hmac
from typing import Final

from services.gateway.access.caller import ANYONE, Caller
from shared.config import DEFAULT_TENANT, Config, TenantSettings
from shared.policy.limits import Limits
from shared.tenancy.api_key import digest

REMEMBERED: Final = 10_000


class Rules:
    """Of one configuration; nothing changes but a bounded memory of callers."""

    def __init__(self, config: Config) -> None:
        self.auth = config.gateway.auth
        self.static = [digest(key) for key in config.gateway.api_keys]
        self.needs_key = bool(self.static) or config.gateway.jwt.configured
        self._tenants = config.tenant
        self._default = config.tenant.get(DEFAULT_TENANT, TenantSettings())
        self._limits = {name: _limits(settings) for name, settings in config.tenant.items()}
        self._others = _limits(self._default)
        self._callers: dict[tuple[str, str, frozenset[str] | None], Caller] = {}
        self.anyone = self.caller(ANYONE, "", None)

    def caller(self, tenant: str, key_id: str, scopes: frozenset[str] | None) -> Caller:
        """Make the caller of a key: it may use what both the key and its tenant may."""
        known = self._callers.get((tenant, key_id, scopes))
        if known is not None:
            return known
        settings = self.tenant(tenant)
        allowed = frozenset(settings.scenarios) or None
        scenarios = allowed if scopes is None else scopes if allowed is None else scopes & allowed
        made = Caller(tenant, key_id, scenarios, settings.priority, settings.weight)
        if len(self._callers) >= REMEMBERED:
            self._callers.clear()
        self._callers[(tenant, key_id, scopes)] = made
        return made

    def tenant(self, name: str) -> TenantSettings:
        """Return a tenant's settings, or those of tenants that have none of their own."""
        return self._tenants.get(name, self._default)

    def limits(self, tenant: str) -> Limits | None:
        """Return a tenant's limits; None where there are none."""
        return self._limits.get(tenant, self._others) or None

    def is_static(self, credential: str) -> str:
        """Name the configured key that this is; empty where it is none. Looks at all of them, whatever it finds."""
        given, found = digest(credential), ""
        for number, known in enumerate(self.static, 1):
            if hmac.compare_digest(given, known):
                found = f"configured-{number}"
        return found


def _limits(settings: TenantSettings) -> Limits:
    return Limits(settings.requests_per_minute, settings.tokens_per_minute, settings.concurrent_streams)
