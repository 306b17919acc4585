"""JWTs of an identity provider: from a token to who asks. PyJWT does the cryptography.

Owns which claims must hold, and a short memory of tokens that were good. Takes the configured algorithms only, all of
them asymmetric; the key decides what kind of signature it may be, never the token.
"""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, InvalidAudienceError, InvalidIssuerError, PyJWTError

from services.gateway.access.keyset import Keyset
from shared.config import JwtSettings
from shared.config.checks import TENANT_NAME
from shared.errors import LinkLost, Unauthorised

LONGEST: Final = 16_384
REMEMBERED: Final = 4096
REMEMBERED_S: Final = 30.0
"""A key that the provider withdraws is still believed for so long, by tokens seen just before."""
_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """What a good token says."""

    tenant: str
    id: str  # for the audit log
    scenarios: frozenset[str] | None


def looks_like_one(credential: str) -> bool:
    """Whether a credential is three parts in base64url; what they hold is not looked at."""
    return credential.count(".") == 2 and credential.startswith("eyJ")  # noqa: PLR2004  `{"` in base64


class Tokens:
    """One per gateway."""

    def __init__(self, settings: JwtSettings) -> None:
        self.keys = Keyset(settings)
        self._settings = settings
        self._good: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    async def identify(self, token: str) -> Identity:
        """Verify a token. Raises Unauthorised, or LinkLost when the provider's keys are not known yet."""
        if len(token) > LONGEST:
            raise Unauthorised("the token is too long")
        seen = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        now = time.time()
        known = self._good.get(seen)
        if known is not None and now < known[0]:
            return known[1]
        claims = await self._verify(token)
        identity = self._read(claims)
        expires = min(int(claims["exp"]), now + REMEMBERED_S)  # which may be more than a float holds
        self._good[seen] = (min(now + REMEMBERED_S, expires + self._settings.leeway_s), identity)
        self._good.move_to_end(seen)
        if len(self._good) > REMEMBERED:
            self._good.popitem(last=False)
        return identity

    async def close(self) -> None:
        """End what runs beside."""
        await self.keys.close()

    async def _verify(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError):
            raise Unauthorised("the token is no JWT") from None
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if algorithm not in self._settings.algorithms or not isinstance(key_id, str):
            raise Unauthorised(f"the token's algorithm is none of {', '.join(self._settings.algorithms)}")
        candidates = await self.keys.find(key_id, algorithm)
        if not candidates:
            if self.keys.empty:
                raise LinkLost(
                    "tokens cannot be checked now: the identity provider's keys are not known; try again soon"
                )
            raise Unauthorised("the token is signed with a key that is not known here")
        failure: PyJWTError | None = None
        for candidate in candidates:
            try:
                return self._decode(token, candidate.key, algorithm)
            except PyJWTError as error:
                failure = error
            except (ValueError, TypeError, OverflowError, RecursionError):  # claims such as exp = 1e400
                raise Unauthorised("the token's claims are malformed") from None
        raise Unauthorised(_why(failure)) from None

    def _decode(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:  # noqa: ANN401  a public key
        settings = self._settings
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": ["exp", "iss", "aud"]},
        )

    def _read(self, claims: dict[str, Any]) -> Identity:
        settings = self._settings
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str) or not TENANT_NAME.match(tenant):
            raise Unauthorised(f"the token's claim {settings.tenant_claim!r} names no tenant")
        scenarios: frozenset[str] | None = None
        if settings.scenarios_claim:
            named = claims.get(settings.scenarios_claim, [])
            named = named.split() if isinstance(named, str) else named
            if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
                raise Unauthorised(f"the token's claim {settings.scenarios_claim!r} is no list of scenarios")
            scenarios = frozenset(named)
        said = str(claims.get("jti") or claims.get("sub") or "")[:_SHOWN]
        shown = "".join(letter if letter.isprintable() else "?" for letter in said)  # users may have chosen it
        return Identity(tenant, f"jwt:{shown}", scenarios)


def _why(failure: PyJWTError | None) -> str:
    """Say what is wrong in words of ours: the library's may quote the token."""
    match failure:
        case ExpiredSignatureError():
            return "the token has expired"
        case InvalidAudienceError():
            return "the token is meant for another audience"
        case InvalidIssuerError():
            return "the token comes from another issuer"
        case _:
            return "the token is not valid"
