"""Bounds of the HTTP entrance that need no socket: what fits the machine, who counts as one client, which origins."""

import pytest

from services.gateway.http import terms
from services.gateway.http.access_log import harmless
from services.gateway.http.cors import Cors
from services.gateway.http.crowd import FULL, PEER_FULL, Crowd, Visit, peer_of
from services.gateway.http.terms import Terms
from shared.config import Config, GatewaySettings, load
from shared.errors import ConfigError


def limited(monkeypatch: pytest.MonkeyPatch, files: int, **settings: int) -> tuple[int, int]:
    monkeypatch.setattr(terms, "raise_file_limit", lambda: files)
    fitted = Terms.read(GatewaySettings(**settings)).settings  # type: ignore[arg-type]
    return fitted.max_connections, fitted.max_connections_per_peer


def test_unless_configured_connections_are_as_many_as_open_files_allow_and_no_more_than_is_wise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert limited(monkeypatch, 1024) == (768, 384)
    assert limited(monkeypatch, 1 << 20) == (16_384, 8_192)
    assert limited(monkeypatch, 1 << 20, max_connections=100_000) == (100_000, 50_000)
    assert limited(monkeypatch, 1024, max_connections_per_peer=5000) == (768, 768)


def test_more_connections_than_open_files_allow_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"may open 1024 files.*raise the limit.*or set at most 768"):
        limited(monkeypatch, 1024, max_connections=1000)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("no address", "no address"),
    ],
)
def test_a_client_is_one_ipv4_address_or_one_ipv6_network(address: str, peer: str) -> None:
    assert peer_of(address) == peer


def test_places_in_the_crowd_are_counted_for_all_and_for_each_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "raise_file_limit", lambda: 1024)
    crowd = Crowd(Terms.read(GatewaySettings(max_connections=3, max_connections_per_peer=2)))
    first = [crowd.admit("a"), crowd.admit("a")]
    assert crowd.admit("a") == PEER_FULL
    assert isinstance(crowd.admit("b"), Visit)
    assert crowd.admit("c") == FULL
    for visit in first:
        assert isinstance(visit, Visit)
        visit.leave()
        visit.leave()  # twice is once
    assert crowd.size == 1
    assert isinstance(crowd.admit("a"), Visit)


def test_only_the_origins_named_are_allowed_and_names_of_headers_are_not_echoed_blindly() -> None:
    cors = Cors(("https://app.example",))
    page = {"origin": "https://APP.example", "access-control-request-method": "POST"}
    assert cors.headers(page)["access-control-allow-origin"] == "https://APP.example"
    for stranger in ("https://app.example.evil", "http://app.example", "null", ""):
        assert "access-control-allow-origin" not in cors.headers({"origin": stranger})
        assert cors.preflight({**page, "origin": stranger}) == {}
    assert "access-control-allow-headers" in cors.preflight({**page, "access-control-request-headers": "a, b"})
    for bad in ("a\r\nset-cookie: x", "a b", "x" * 5000):
        assert "access-control-allow-headers" not in cors.preflight({**page, "access-control-request-headers": bad})
    assert Cors(()).headers(page) == {}


def test_what_does_not_fit_together_is_told_at_once() -> None:
    environ = {
        "BATON_GATEWAY__TLS_CERT": "a.pem",
        "BATON_GATEWAY__TLS_CLIENT_CA": "b.pem",
        "BATON_GATEWAY__CORS_ORIGINS": "app.example,https://app.example/path",
        "BATON_GATEWAY__MAX_BODY_BYTES": "3000",
        "BATON_GATEWAY__MAX_BODY_TOTAL": "2000",
        "BATON_GATEWAY__MAX_CONNECTIONS": "5",
        "BATON_GATEWAY__MAX_CONNECTIONS_PER_PEER": "6",
    }
    with pytest.raises(ConfigError) as refused:
        load(None, environ)
    faults = "\n".join(refused.value.faults)
    for words in (
        "tls_cert and gateway.tls_key belong together",
        "max_body_total must hold at least one body",
        "max_connections_per_peer must not be above",
        "'app.example' is no origin",
        "'https://app.example/path' is no origin",
    ):
        assert words in faults
    assert Config().gateway.cors_origins == ()


def test_what_a_client_sent_can_forge_no_line_and_steer_no_terminal() -> None:
    assert harmless("curl/8") == "curl/8"
    assert harmless("a\nb\x1b[2J\u202e\udc80") == "a?b?[2J??"
    assert len(harmless("x" * 10_000)) == 128
