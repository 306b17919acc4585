"""The form of API keys, what is kept of them, and the words of `baton keys`."""

import re

import pytest

from services.commands.access import Access
from services.commands.keys import lifetime, revoke, table
from shared.config import Nats, RedisSettings
from shared.errors import BadRequest
from shared.tenancy.api_key import ApiKey, digest, make, split
from shared.tenancy.register import not_older


def test_a_key_is_shown_whole_and_kept_as_a_digest() -> None:
    kept, key = make("acme", ["chat"], now=1000, lifetime_s=60, name="laptop")
    assert re.fullmatch(r"bt-[0-9a-z]{12}-[A-Za-z0-9_-]{43}", key)
    key_id, secret = split(key) or ("", "")
    assert key_id == kept.id
    assert kept.opens(digest(secret))
    assert not kept.opens(digest(secret[:-1]))
    assert secret not in repr(kept) + repr(kept.fields())
    assert len({make("acme", [], now=0)[1] for _ in range(100)}) == 100


@pytest.mark.parametrize("scenarios", [[], ["chat"], ["a", "b"]])
def test_what_is_kept_is_read_back(scenarios: list[str]) -> None:
    kept, _ = make("a.b@c", scenarios, now=5, lifetime_s=9, name="ünï code")
    fields = {name.encode(): value.encode() for name, value in kept.fields().items()}
    assert ApiKey.read(kept.id, fields) == kept


@pytest.mark.parametrize("fields", [{}, {b"digest": b"x"}, {b"digest": b"x", b"tenant": b"t", b"expires": b"soon"}])
def test_a_hash_that_is_no_key_opens_nothing(fields: dict[bytes, bytes]) -> None:
    assert ApiKey.read("x", fields) is None


def test_a_digest_that_is_no_digest_opens_nothing() -> None:
    read = ApiKey.read("x", {b"digest": "é".encode(), b"tenant": b"t"})
    assert read is not None
    assert not read.opens(digest("secret"))


def test_a_hash_without_scopes_may_use_nothing() -> None:
    read = ApiKey.read("x", {b"digest": b"d", b"tenant": b"t"})
    assert read is not None
    assert read.scenarios == frozenset()


def test_a_key_is_worth_nothing_once_revoked_or_expired() -> None:
    assert ApiKey("i", "d", "t").state(10**10) == "active"
    assert ApiKey("i", "d", "t", expires=100).state(99) == "active"
    assert ApiKey("i", "d", "t", expires=100).state(100) == "expired"
    assert ApiKey("i", "d", "t", expires=100, revoked=1).state(1000) == "revoked"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bt-",
        "bt-short-" + "x" * 43,
        f"bt-{'0' * 12}-{'x' * 42}",
        f"BT-{'0' * 12}-{'x' * 43}",
        f"bt-{'0' * 12}-{'x' * 43}\n",
    ],
)
def test_what_is_not_of_the_form_is_no_key(text: str) -> None:
    assert split(text) is None


@pytest.mark.parametrize(
    ("tenant", "scenarios", "name"),
    [("", [], ""), ("a b", [], ""), ("a{b}", [], ""), ("a", ["B"], ""), ("a", [], "x" * 65), ("a", [], "\n")],
)
def test_bad_names_are_refused(tenant: str, scenarios: list[str], name: str) -> None:
    with pytest.raises(BadRequest):
        make(tenant, scenarios, now=0, name=name)


def test_lifetimes_have_a_unit() -> None:
    assert [lifetime(text) for text in ("90s", "5m", "12h", "30d", "4w")] == [90, 300, 43_200, 2_592_000, 2_419_200]
    for wrong in ("", "30", "d", "-1d", "0d", "1.5h", "4000d", "30 d"):
        with pytest.raises(BadRequest):
            lifetime(wrong)


def test_what_is_no_key_is_not_repeated_in_words_that_may_be_logged() -> None:
    _, key = make("acme", [], now=0)
    for wrong in (key[:-1], f"{key}x", f"Bearer {key}", key.removeprefix("bt-")):
        with pytest.raises(BadRequest) as refused:
            revoke(Access(Nats(), RedisSettings(), "operator", 1.0, ""), wrong, wait=False)
        secret = key[16:]
        assert not any(secret[start : start + 6] in str(refused.value) for start in range(len(secret) - 5))


def test_the_table_shows_what_a_key_is_and_no_secret() -> None:
    entry = {
        "id": "k",
        "tenant": "t",
        "name": "",
        "scenarios": None,
        "state": "active",
        "created": "c",
        "expires": None,
        "revoked": None,
        "last_used": None,
    }
    assert table([entry]).splitlines()[1].split() == ["k", "t", "-", "all", "active", "c", "never", "never"]
    assert table([]).count("\n") == 1


def test_entries_of_the_stream_are_ordered_by_time_then_number() -> None:
    assert not_older("10-0", "9-5")
    assert not_older("10-1", "10-1")
    assert not not_older("10-2", "10-11")
    assert not_older("0-0", "0-0")
