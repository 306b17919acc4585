"""JWTs with real keys and a real JWKS server: what is taken, what is refused."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)

from services.gateway.access.tokens import LONGEST, Tokens, looks_like_one
from shared.errors import Unauthorised
from tests.contract.tenancy.providers import (
    AUDIENCE,
    EC_384,
    EC_KEY,
    ISSUER,
    OTHER_RSA,
    RSA_KEY,
    Provider,
    public,
    settings,
    token,
)


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


async def test_a_token_that_lasts_for_ever_is_good(tokens: Tokens) -> None:
    assert (await tokens.identify(token(exp=10**400))).tenant == "acme"


async def test_the_scenarios_of_a_token_are_those_it_names_and_no_others(provider: tuple[Provider, str]) -> None:
    tokens = Tokens(settings(provider[1], tenant_claim="org", scenarios_claim="models"))
    for named, scopes in ((["a", "b"], {"a", "b"}), ("a b", {"a", "b"}), ([], set()), (None, set())):
        assert (await tokens.identify(token(org="acme", models=named))).scenarios == scopes
    with pytest.raises(Unauthorised, match="no list of scenarios"):
        await tokens.identify(token(org="acme", models=5))
    await tokens.close()


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
