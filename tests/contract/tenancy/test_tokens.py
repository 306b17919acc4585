"""JWTs with real keys and a real JWKS server: what is taken, what is refused, and what happens when keys change."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from services.gateway.access import keyset
from services.gateway.access.keyset import read_file, read_jwks
from services.gateway.access.tokens import LONGEST, Tokens, looks_like_one
from shared.config import JwtSettings
from shared.errors import ConfigError, LinkLost, Unauthorised

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505  it is to be refused
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
ISSUER, AUDIENCE = "https://id.example", "baton"


def public(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


def token(key: Any = RSA_KEY, alg: str = "RS256", kid: str | None = "r1", **changed: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 300, **changed}
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=alg, headers={"kid": kid} if kid else {})


class Provider:
    """An identity provider's key server that says what a test tells it."""

    def __init__(self) -> None:
        self.keys: Any = [public(RSA_KEY, "r1"), public(EC_KEY, "e1")]
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        return web.Response(body=body, status=self.status)


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Provider, str]]:
    made = Provider()
    app = web.Application()
    app.router.add_get("/keys", made.answer)
    server = TestServer(app)
    await server.start_server()
    yield made, str(server.make_url("/keys"))
    await server.close()


@pytest.fixture
async def tokens(provider: tuple[Provider, str]) -> AsyncIterator[Tokens]:
    made = Tokens(settings(provider[1]))
    yield made
    await made.close()


def settings(url: str, **changed: Any) -> JwtSettings:
    return JwtSettings(**{"jwks_url": url, "issuer": ISSUER, "audience": AUDIENCE, "leeway_s": 5.0, **changed})


async def test_good_tokens_of_either_kind_name_their_tenant(tokens: Tokens) -> None:
    assert (await tokens.identify(token())).tenant == "acme"
    assert (await tokens.identify(token(EC_KEY, "ES256", "e1", sub="auth0|a-1", jti="t9"))).tenant == "auth0|a-1"
    who = await tokens.identify(token(EC_KEY, "ES256", "e1", jti="t9"))
    assert (who.id, who.scenarios) == ("jwt:t9", None)
    assert looks_like_one(token())


async def test_an_identity_is_harmless_in_logs(tokens: Tokens) -> None:
    who = await tokens.identify(token(tenant="acme", jti="josé\ud800\n{}\u202e"))
    assert who.id == "jwt:josé??{}?"


async def test_clocks_may_differ_by_the_leeway_and_no_more(tokens: Tokens) -> None:
    assert await tokens.identify(token(exp=time.time() - 2))
    with pytest.raises(Unauthorised, match="expired"):
        await tokens.identify(token(exp=time.time() - 6))
    with pytest.raises(Unauthorised):
        await tokens.identify(token(nbf=time.time() + 60))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "somebody"}, "another audience"),
        ({"aud": None}, "not valid"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "not valid"),
        ({"exp": None}, "not valid"),
        ({"exp": "tomorrow"}, "not valid|malformed"),
        ({"sub": None}, "names no tenant"),
        ({"sub": "a tenant: with {what} redis must not see"}, "names no tenant|not valid"),
    ],
)
async def test_claims_that_do_not_hold_are_refused(tokens: Tokens, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Unauthorised, match=why):
        await tokens.identify(token(**changed))


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 300}
    return f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}.{part(signature)}"


async def test_no_algorithm_but_those_configured(tokens: Tokens) -> None:
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for header in (
        {"alg": "none"},
        {"alg": "none", "kid": "r1"},
        {"alg": "None", "kid": "r1"},
        {"kid": "r1"},
        {"alg": 5},
    ):
        with pytest.raises(Unauthorised):
            await tokens.identify(forged(header))
    unsigned = forged({"alg": "HS256", "kid": "r1"}).rsplit(".", 1)[0]
    mac = base64.urlsafe_b64encode(hmac.new(pem, unsigned.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    with pytest.raises(Unauthorised, match="algorithm"):
        await tokens.identify(f"{unsigned}.{mac}")  # the public key as if it were a shared secret
    with pytest.raises(Unauthorised, match="algorithm"):
        await tokens.identify(token(RSA_KEY, "PS256"))


async def test_a_key_verifies_only_what_it_is_for(provider: tuple[Provider, str]) -> None:
    state, url = provider
    state.keys = [public(RSA_KEY, "r1", alg="RS256"), public(EC_384, "e3")]
    tokens = Tokens(settings(url, algorithms=("RS256", "PS256", "ES256", "ES384")))
    assert await tokens.identify(token())
    assert await tokens.identify(token(EC_384, "ES384", "e3"))
    for wrong in (
        token(RSA_KEY, "PS256"),
        token(EC_KEY, "ES256", "r1"),
        token(EC_KEY, "ES256", "e3"),
        token(OTHER_RSA),
    ):
        with pytest.raises(Unauthorised):
            await tokens.identify(wrong)
    await tokens.close()


async def test_a_changed_signature_or_claim_is_refused(tokens: Tokens) -> None:
    head, claims, signature = token().split(".")
    swapped = base64.urlsafe_b64encode(base64.urlsafe_b64decode(claims + "==").replace(b"acme", b"beta")).decode()
    for wrong in (
        f"{head}.{swapped.rstrip('=')}.{signature}",
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        "a.b.c",
        "eyJ..",
    ):
        with pytest.raises(Unauthorised):
            await tokens.identify(wrong)
    with pytest.raises(Unauthorised, match="too long"):
        await tokens.identify("eyJ" + "a" * LONGEST)


async def test_rotated_keys_are_fetched_when_first_seen_and_strangers_cannot_cause_more(
    provider: tuple[Provider, str], tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = provider
    assert await tokens.identify(token())
    for number in range(20):
        with pytest.raises(Unauthorised, match="not known here"):
            await tokens.identify(token(OTHER_RSA, kid=f"stranger-{number}"))
    assert state.asked == 1
    monkeypatch.setattr(keyset, "BETWEEN_FETCHES_S", 0.0)
    state.keys = [public(OTHER_RSA, "r2")]
    assert await tokens.identify(token(OTHER_RSA, kid="r2"))
    with pytest.raises(Unauthorised):
        await tokens.identify(token(sub="beta"))  # of the key that was withdrawn


@pytest.mark.parametrize(
    "trouble", [b"", b"nonsense", b'{"keys": []}', b'{"keys": 5}', b"[" * 100_000, b" " * (1 << 21), 500]
)
async def test_the_last_good_keys_stay_while_the_provider_is_in_trouble(
    provider: tuple[Provider, str], tokens: Tokens, monkeypatch: pytest.MonkeyPatch, trouble: bytes | int
) -> None:
    state, _ = provider
    assert await tokens.identify(token())
    monkeypatch.setattr(keyset, "BETWEEN_FETCHES_S", 0.0)
    if isinstance(trouble, int):
        state.status = trouble
    else:
        state.body = trouble
    with pytest.raises(Unauthorised):
        await tokens.identify(token(OTHER_RSA, kid="new"))
    assert (tokens.keys.failures, state.asked) == (1, 2)
    assert await tokens.identify(token(sub="beta"))


async def test_without_any_key_nothing_can_be_said_and_nobody_is_called_wrong() -> None:
    tokens = Tokens(settings("http://127.0.0.1:1/keys"))
    with pytest.raises(LinkLost, match="keys are not known"):
        await tokens.identify(token())
    await tokens.close()


async def test_symmetric_and_short_keys_are_never_taken() -> None:
    entries = [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "o1"},
        public(SHORT_RSA, "s1"),
        public(RSA_KEY, "enc") | {"use": "enc"},
        {"kty": "RSA", "n": "AQAB"},
        {"kty": ["RSA"]},
        "no key",
        public(EC_KEY, "e1"),
    ]
    assert [key.id for key in read_jwks({"keys": entries})] == ["e1"]


async def test_the_scenarios_of_a_token_are_those_it_names_and_no_others(provider: tuple[Provider, str]) -> None:
    tokens = Tokens(settings(provider[1], tenant_claim="org", scenarios_claim="models"))
    for named, scopes in ((["a", "b"], {"a", "b"}), ("a b", {"a", "b"}), ([], set()), (None, set())):
        assert (await tokens.identify(token(org="acme", models=named))).scenarios == scopes
    with pytest.raises(Unauthorised, match="no list of scenarios"):
        await tokens.identify(token(org="acme", models=5))
    await tokens.close()


async def test_a_file_may_hold_pem_or_jwks(tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    jwks = tmp_path / "keys.json"
    jwks.write_text(json.dumps({"keys": [public(RSA_KEY, "r1")]}))
    for path in (pem, jwks):
        tokens = Tokens(settings("", key_file=str(path)))
        assert (await tokens.identify(token())).tenant == "acme"
        assert (await tokens.identify(token(kid=None))).tenant == "acme"
        with pytest.raises(Unauthorised):
            await tokens.identify(token(OTHER_RSA))
        await tokens.close()
    bad = tmp_path / "bad.pem"
    for content in (
        b"nonsense",
        SHORT_RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ):
        bad.write_bytes(content)
        with pytest.raises(ConfigError, match=r"gateway\.jwt\.key_file"):
            read_file(str(bad))


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"issuer": ""}, "issuer is missing"),
        ({"audience": ""}, "audience is missing"),
        ({"algorithms": ("RS256", "HS256")}, "HS256 is none of"),
        ({"algorithms": ()}, "is empty"),
        ({"url": "http://id.example/keys"}, "plain http"),
        ({"url": "http://127.evil.example/keys"}, "plain http"),
        ({"key_file": "x"}, "not both"),
    ],
)
def test_a_configuration_that_would_let_anyone_in_is_a_mistake(changed: dict[str, Any], fault: str) -> None:
    assert settings("https://id.example/keys").faults() == []
    (found,) = settings(**{"url": "https://id.example/keys", **changed}).faults()
    assert fault in found
