"""The form of an API key, `bt-<id>-<secret>`, and what is kept of it. Pure but for the randomness of a new one.

The id is public. The secret is 256 random bits, so a plain digest of it cannot be searched for.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from shared.config.checks import tenant_name
from shared.errors import BadRequest
from shared.subjects import SCENARIO_NAME

_FORM: Final = re.compile(r"^bt-([0-9a-z]{12})-([A-Za-z0-9_-]{43})\Z")
ID_FORM: Final = re.compile(r"^[0-9a-z]{12}\Z")
_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is kept of a key. Times are unix seconds; 0: never, or not yet."""

    id: str
    digest: str
    tenant: str
    scenarios: frozenset[str] | None = None  # None: all that its tenant may use
    created: int = 0
    expires: int = 0
    revoked: int = 0
    name: str = ""
    used: int = 0

    def opens(self, digest: str) -> bool:
        """Whether a secret's digest is this key's. Takes the same time for every wrong one."""
        return hmac.compare_digest(self.digest.encode(), digest.encode())

    def state(self, now: float) -> str:
        """Say what it is worth: active, revoked or expired."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and now >= self.expires else "active"

    def fields(self) -> dict[str, str]:
        """Make the fields of its hash in Redis."""
        return {
            "digest": self.digest,
            "tenant": self.tenant,
            "scenarios": " ".join(sorted(self.scenarios)) if self.scenarios is not None else "*",
            "created": str(self.created),
            "expires": str(self.expires),
            "revoked": str(self.revoked),
            "name": self.name,
            "used": str(self.used),
        }

    @classmethod
    def read(cls, key_id: str, fields: Mapping[bytes, bytes]) -> Self | None:
        """Read such a hash. None where there is none, or one that is not ours."""
        try:
            said = {name.decode(): value.decode() for name, value in fields.items()}
            scopes = said.get("scenarios", "")
            return cls(
                key_id,
                said["digest"],
                said["tenant"],
                None if scopes == "*" else frozenset(scopes.split()),
                created=int(said.get("created", "0")),
                expires=int(said.get("expires", "0")),
                revoked=int(said.get("revoked", "0")),
                name=said.get("name", ""),
                used=int(said.get("used", "0")),
            )
        except (KeyError, ValueError):
            return None


def split(credential: str) -> tuple[str, str] | None:
    """Take a credential apart into id and secret; None when it is no key of ours."""
    found = _FORM.match(credential)
    return (found[1], found[2]) if found else None


def digest(secret: str) -> str:
    """Make what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def make(tenant: str, scenarios: list[str], *, now: int, lifetime_s: int = 0, name: str = "") -> tuple[ApiKey, str]:
    """Make a key; returns what is kept, and the key itself, which is kept nowhere. Raises BadRequest."""
    if tenant_name(tenant):
        raise BadRequest(f"{tenant!r} {tenant_name(tenant)}", "tenant")
    for scenario in scenarios:
        if not SCENARIO_NAME.match(scenario):
            raise BadRequest(f"{scenario!r} is no name of a scenario", "scenario")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise BadRequest(f"a key's name has at most {LONGEST_NAME} printable characters", "name")
    key_id = "".join(secrets.choice(_LETTERS) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    kept = ApiKey(
        key_id,
        digest(secret),
        tenant,
        frozenset(scenarios) or None,
        created=now,
        expires=now + lifetime_s if lifetime_s else 0,
        name=name,
    )
    return kept, f"bt-{key_id}-{secret}"
