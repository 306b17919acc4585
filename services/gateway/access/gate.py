"""The gate: from a credential to a caller, from a caller to a grant.

Owns the configured keys. Knows neither HTTP nor NATS, and nothing of what is asked but its size.
"""

import hmac

from services.gateway.access.caller import Caller, Grant
from shared.config import GatewaySettings
from shared.errors import Unauthorised


class Gate:
    """One per gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = [key.encode() for key in settings.api_keys]

    async def identify(self, credential: str) -> Caller:
        """Say who a client is. Keys are compared in constant time. Raises Unauthorised."""
        given = credential.encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        if self._keys and not any(matches):
            raise Unauthorised
        return Caller()

    async def admit(self, caller: Caller, scenario: str, prompt_tokens: int, new_tokens: int) -> Grant:  # noqa: ARG002
        """Take a request's share: `new_tokens` is what it may generate at most. Raises LimitReached."""
        return Grant(caller)

    def settle(self, grant: Grant, prompt_tokens: int, new_tokens: int) -> None:
        """Give back what a request that has ended did not use."""
