"""The public keys of an identity provider: from a PEM or JWKS file, or from its URL, kept up to date.

Owns the fetching: with a deadline, bounded in size and in rate, one at a time. The last good keys stay when a fetch
fails. Symmetric keys, and RSA keys that are too short, are never taken.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from shared.config import JwtSettings
from shared.errors import ConfigError, LinkLost

LARGEST: Final = 1 << 20
MOST_KEYS: Final = 256
LEAST_RSA_BITS: Final = 2048
MOST_WAITING: Final = 64
"""Requests that a fetch holds up at a time; anybody can cause them, and each holds a place in the gateway."""
BETWEEN_FETCHES_S: Final = 5.0
"""However many unknown key ids are seen."""
_OK: Final = 200

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One public key; `algorithm` is empty where its owner did not fix one."""

    id: str
    algorithm: str
    key: PublicKey


class Keyset:
    """One provider's keys."""

    def __init__(self, settings: JwtSettings) -> None:
        self.failures = 0
        self._settings = settings
        self._keys: list[VerifyingKey] = []
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0  # for it
        if settings.key_file:
            self._keys = read_file(settings.key_file)

    @property
    def empty(self) -> bool:
        """Whether no key is known yet, so that nothing can be said of any token."""
        return not self._keys

    async def find(self, key_id: str, algorithm: str) -> list[VerifyingKey]:
        """Return the keys that a token may have been signed with. Asks the provider when the id is new.

        Raises LinkLost when too many wait for its answer already.
        """
        found = self._match(key_id, algorithm)
        if not self._settings.jwks_url:
            return found
        if not found:
            await self._refresh()
            return self._match(key_id, algorithm)
        if time.monotonic() - self._fetched_at > self._settings.refresh_s:
            self._begin()  # beside the requests: what is known goes on meanwhile
        return found

    def prepare(self) -> None:
        """Begin to fetch the keys, so that the first tokens find them."""
        if self._settings.jwks_url:
            self._begin()

    async def close(self) -> None:
        """End a fetch that still runs."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _match(self, key_id: str, algorithm: str) -> list[VerifyingKey]:
        fitting = [key for key in self._keys if key.algorithm in {"", algorithm} and fits(key.key, algorithm)]
        if key_id:
            named = [key for key in fitting if key.id == key_id]
            return named or [key for key in fitting if not key.id]
        return fitting if len(fitting) == 1 else []  # guessing among several would be work for strangers to cause

    async def _refresh(self) -> None:
        fetching = self._begin()
        if fetching is None:
            return
        if self._waiting >= MOST_WAITING:
            raise LinkLost("the identity provider's keys are being fetched; try again in a moment")
        self._waiting += 1
        try:
            await asyncio.shield(fetching)
        finally:
            self._waiting -= 1

    def _begin(self) -> "asyncio.Task[None] | None":
        """Join the fetch that runs, or start one unless the last try was a moment ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if time.monotonic() - self._tried_at < BETWEEN_FETCHES_S:
            return None
        self._tried_at = time.monotonic()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="jwks")
        return self._fetching

    async def _fetch(self) -> None:
        url = self._settings.jwks_url
        try:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, allow_redirects=False, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status != _OK:
                    raise ValueError(f"it answers {answer.status}")  # noqa: TRY301
                body = await answer.content.read(LARGEST + 1)
                while not answer.content.at_eof() and len(body) <= LARGEST:
                    body += await answer.content.read(LARGEST + 1 - len(body))
            if len(body) > LARGEST:
                raise ValueError(f"it sends more than {LARGEST} bytes")  # noqa: TRY301
            fresh = read_jwks(json.loads(body))
            if not fresh:
                raise ValueError("it holds no key that can be used")  # noqa: TRY301
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            self.failures += 1
            log.warning("the identity provider's keys cannot be read", extra={"url": url, "error": str(error)})
            return
        self._keys, self._fetched_at = fresh, time.monotonic()


def fits(key: PublicKey, algorithm: str) -> bool:
    """Whether an algorithm works with a key of this kind."""
    if isinstance(key, RSAPublicKey):
        return algorithm[:2] in {"RS", "PS"}
    if isinstance(key, EllipticCurvePublicKey):
        return algorithm == {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}.get(key.curve.name)
    return algorithm == "EdDSA"


def read_jwks(document: Any) -> list[VerifyingKey]:  # noqa: ANN401  whatever JSON says
    """Take the keys of a JWKS that verify signatures; others are passed over. Raises ValueError."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('it is no JWKS: {"keys": [...]}')  # noqa: TRY004
    found = []
    for entry in document["keys"][:MOST_KEYS]:
        if (
            not isinstance(entry, dict)
            or entry.get("use", "sig") != "sig"
            or entry.get("kty") not in ("RSA", "EC", "OKP")  # no set: it may be a list
        ):
            continue
        name, algorithm = str(entry.get("kid") or ""), str(entry.get("alg") or "")
        try:
            key = PyJWK(entry, algorithm or _guess(entry)).key
        except (PyJWTError, ValueError, TypeError, KeyError) as error:
            log.info("a key of the JWKS is passed over", extra={"kid": name[:64], "error": str(error)})
            continue
        if usable(key):
            found.append(VerifyingKey(name, algorithm, key))
    return found


def _guess(entry: dict[str, Any]) -> str:
    """Name some algorithm of the key's kind: the library wants one in order to read the key."""
    curves = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
    return {"RSA": "RS256", "OKP": "EdDSA"}.get(str(entry["kty"])) or curves.get(str(entry.get("crv")), "ES256")


def usable(key: object) -> bool:
    """Whether a key is public, asymmetric and long enough."""
    if isinstance(key, RSAPublicKey):
        return key.key_size >= LEAST_RSA_BITS
    return isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey)


def read_file(path: str) -> list[VerifyingKey]:
    """Read a PEM file (a public key or a certificate) or a JWKS file. Raises ConfigError."""
    try:
        data = Path(path).read_bytes()
        if data.lstrip().startswith(b"{"):
            keys = read_jwks(json.loads(data))
        elif b"BEGIN CERTIFICATE" in data:
            keys = [VerifyingKey("", "", key) for key in [load_pem_x509_certificate(data).public_key()] if usable(key)]  # type: ignore[arg-type]
        else:
            keys = [VerifyingKey("", "", key) for key in [load_pem_public_key(data)] if usable(key)]  # type: ignore[arg-type]
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([f"gateway.jwt.key_file: {path} cannot be read as PEM or JWKS: {error}"]) from error
    if not keys:
        raise ConfigError([f"gateway.jwt.key_file: {path} holds no public key that can be used (RSA needs 2048 bits)"])
    return keys
