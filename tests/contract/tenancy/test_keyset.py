"""The keys of an identity provider: which are taken, when they are fetched, and what stays when it is in trouble."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from services.gateway.access import keyset
from services.gateway.access.keyset import read_file, read_jwks
from services.gateway.access.tokens import Tokens
from shared.errors import ConfigError, LinkLost, Unauthorised
from tests.contract.tenancy.providers import (
    EC_KEY,
    OTHER_RSA,
    RSA_KEY,
    SHORT_RSA,
    Provider,
    public,
    settings,
    token,
)


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


async def test_a_slow_provider_holds_up_a_bounded_number_of_strangers_and_nobody_else(
    provider: tuple[Provider, str], tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await tokens.identify(token())
    monkeypatch.setattr(keyset, "BETWEEN_FETCHES_S", 0.0)
    provider[0].may_answer.clear()
    strangers = [asyncio.ensure_future(tokens.identify(token(OTHER_RSA, kid="new", jti=f"{n}"))) for n in range(100)]
    async with asyncio.timeout(2):
        while provider[0].asked < 2:  # noqa: ASYNC110  the provider announces nothing
            await asyncio.sleep(0.01)
    assert await tokens.identify(token(sub="beta"))
    assert sum(not stranger.done() for stranger in strangers) == keyset.MOST_WAITING
    provider[0].keys.append(public(OTHER_RSA, "new"))
    provider[0].may_answer.set()
    answers = await asyncio.gather(*strangers, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers].count("Identity") == keyset.MOST_WAITING
    assert all("try again" in str(answer) for answer in answers if isinstance(answer, LinkLost))
    assert provider[0].asked == 2


async def test_the_first_tokens_of_a_gateway_find_the_keys_that_it_asked_for_when_it_started(
    provider: tuple[Provider, str], tokens: Tokens
) -> None:
    tokens.keys.prepare()
    async with asyncio.timeout(5):
        while tokens.keys.empty:  # noqa: ASYNC110  it announces nothing
            await asyncio.sleep(0.01)
    asked = [tokens.identify(token(jti=f"{number}")) for number in range(2 * keyset.MOST_WAITING)]
    assert {who.tenant for who in await asyncio.gather(*asked)} == {"acme"}
    assert provider[0].asked == 1


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


async def test_a_key_whose_name_or_algorithm_is_null_has_none(provider: tuple[Provider, str], tokens: Tokens) -> None:
    provider[0].keys = [public(RSA_KEY, "r1") | {"kid": None, "alg": None}]
    assert await tokens.identify(token())
    assert await tokens.identify(token(kid=None))


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
