"""Which browser pages may call, as the CORS protocol says it. Decides on headers alone; sends nothing.

Credentials in the sense of that protocol (cookies) are never allowed: keys travel in a header that a page must set.
"""

import re
from collections.abc import Mapping
from typing import Final

EXPOSED: Final = ", ".join(
    [
        "x-request-id",
        *(f"x-ratelimit-{part}-{kind}" for part in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
        "retry-after",
        "x-baton-reason",
        "x-should-retry",
    ]
)
METHODS: Final = "GET, HEAD, POST, OPTIONS"
FRESH_S: Final = "600"
_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(, ?[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_LONGEST: Final = 2048


class Cors:
    """The origins that may call. None: the protocol is not spoken at all."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def headers(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Make what every answer carries for a page of an allowed origin; nothing for others."""
        if not self._origins:
            return {}
        origin = asked.get("origin", "")
        if not origin or not (self._any or origin.lower() in self._origins):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": "*" if self._any else origin,
            "access-control-expose-headers": EXPOSED,
            "vary": "origin",
        }

    def preflight(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Make what the answer to a preflight carries besides; nothing when it is none, or not allowed."""
        if "access-control-request-method" not in asked or "access-control-allow-origin" not in self.headers(asked):
            return {}
        said = {"access-control-allow-methods": METHODS, "access-control-max-age": FRESH_S}
        wanted = asked.get("access-control-request-headers", "")
        if len(wanted) <= _LONGEST and _NAMES.fullmatch(wanted):
            said["access-control-allow-headers"] = wanted  # any: what we do not know we do not read
        return said
