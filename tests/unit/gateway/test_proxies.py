"""Whom a request comes from behind proxies, whatever those who sent it wrote."""

import pytest
from multidict import CIMultiDict

from services.gateway.http import terms
from services.gateway.http.crowd import FULL, PEER_FULL, Crowd, Visit
from services.gateway.http.proxies import MOST_HOPS, Proxies
from services.gateway.http.terms import Terms
from shared.config import GatewaySettings, load
from shared.errors import ConfigError

PROXY = "10.0.0.1"
PROXIES = Proxies((PROXY, "10.0.1.0/24", "2001:db8:ff::/48", "fe80::/64"))


def told(*lines: str, peer: str = PROXY) -> str:
    """Read headers, given as lines; whom they come from."""
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return PROXIES.client(peer, CIMultiDict(pairs))


@pytest.mark.parametrize("peer", ["10.0.0.1", "10.0.1.200", "2001:db8:ff:9::1", "::ffff:10.0.0.1", "fe80::1%eth0"])
def test_a_trusted_proxy_is_believed(peer: str) -> None:
    assert PROXIES.trusts(peer)
    assert told("X-Forwarded-For: 203.0.113.9", peer=peer) == "203.0.113.9"


@pytest.mark.parametrize("peer", ["10.0.0.2", "10.0.2.1", "2001:db8:fe::1", "::1", "10.0.0.10", "", "a socket"])
def test_nobody_else_is(peer: str) -> None:
    assert not PROXIES.trusts(peer)
    assert told("X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", peer=peer) == peer


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert Proxies().client("127.0.0.1", CIMultiDict({"X-Forwarded-For": "203.0.113.9"})) == "127.0.0.1"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # what the client itself wrote is not believed
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),  # nor in a line of its own
        (["198.51.100.1, 203.0.113.9, 10.0.1.7"], "203.0.113.9"),  # through two proxies of ours
        (["203.0.113.9", "10.0.1.7, 10.0.1.8"], "203.0.113.9"),
        (["10.0.1.7, 203.0.113.9"], "203.0.113.9"),  # who names our proxy gains nothing
        (["rubbish\x1b[2J, 203.0.113.9"], "203.0.113.9"),  # nor does rubbish hide anybody
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::9]:4711"], "2001:db8::9"),
        (["[2001:DB8:0::9]"], "2001:db8::9"),
        (["2001:db8::9"], "2001:db8::9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, ::ffff:10.0.1.7"], "203.0.113.9"),
        ([",, 203.0.113.9 ,\t, "], "203.0.113.9"),
        (["10.0.1.9, 10.0.1.7"], "10.0.1.9"),  # nobody but proxies: the first of them asked
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxys(lines: list[str], client: str) -> None:
    assert told(*(f"X-Forwarded-For:{line}" for line in lines)) == client


@pytest.mark.parametrize(
    "value",
    [
        *("", ",", " , ,", "unknown", "_hidden", "localhost", "203.0.113", "203.0.113.256", "203.0.113.010", "0x7f.1"),
        *("203.0.113.9:port:1", "203.0.113.9 10.0.1.7", "203.0.113.9\x00", "\uff12\u0660\u0663.0.113.9", "\udc80"),
        *("[2001:db8::9", "2001:db8::9]", "[]", "[]:80", "[2001:db8::9]x", "::::", "1" * 40, "f" * 8000, "1::%eth0"),
        *("fe80::1%\n2026 forged line", "203.0.113.9/32", '"203.0.113.9"', "for=203.0.113.9", "203.0.113.9, unknown"),
        *("203.0.113.9, rubbish, 10.0.1.7", "203.0.113.9," + ",".join(["10.0.1.7"] * MOST_HOPS)),
    ],
)
def test_what_is_malformed_leaves_the_peers_own_address(value: str) -> None:
    assert told(f"X-Forwarded-For:{value}") == PROXY


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (["For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
        (['proto=https ; for="203.0.113.9:4711";'], "203.0.113.9"),
        (["for=198.51.100.1, for=203.0.113.9;proto=http, for=10.0.1.7"], "203.0.113.9"),
        (["for=198.51.100.1", "for=203.0.113.9"], "203.0.113.9"),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (['for="[2001:db8:cafe::17]:_port"'], "2001:db8:cafe::17"),
        (['for="203.0.113\\.9"'], "203.0.113.9"),
        (['for=203.0.113.9;host="a,for=198.51.100.1;b\\", for=198.51.100.2"'], "203.0.113.9"),
        (['for="198.51.100.1', "for=203.0.113.9"], "203.0.113.9"),  # what is open in one line does not close in another
        (["for=10.0.1.7"], "10.0.1.7"),
    ],
)
def test_forwarded_is_read_where_there_is_no_other(lines: list[str], client: str) -> None:
    assert told(*(f"Forwarded:{line}" for line in lines)) == client
    assert told("X-Forwarded-For: 192.0.2.5", *(f"Forwarded:{line}" for line in lines)) == "192.0.2.5"


@pytest.mark.parametrize(
    "value",
    [
        *("", ",", "for", "for=", "=203.0.113.9", "for=unknown", "for=_hidden", "proto=https", "203.0.113.9", "for:1"),
        *("for=203.0.113.9;for=198.51.100.1", 'for="203.0.113.9', 'for="203.0.113.9\\"', 'for="203.0.113.9"x'),
        *('for="198.51.100.1, for=203.0.113.9', "for=203.0.113.9, by=10.0.1.7", "for=203.0.113.9 for=1.2.3.4"),
        *('for="fe80::1%\\\n"', "for=[fe80::1%25eth0]", "for=203.0.113.9,", 'for="' + "\\" * 8001 + '"', "a=b;" * 2000),
    ],
)  # fmt: skip
def test_what_is_malformed_in_forwarded_leaves_the_peers_own_address(value: str) -> None:
    assert told(f"Forwarded:{value}") == PROXY


def test_a_trusted_proxy_is_held_to_the_bound_on_all_and_takes_nothing_from_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terms, "raise_file_limit", lambda: 1024)
    bounds = {"max_connections": 5, "max_connections_per_peer": 1}
    proxied = Terms.read(GatewaySettings(**bounds, trusted_proxies=("2001:db8::1",)))  # type: ignore[arg-type]
    crowd = Crowd(proxied)
    visits = [crowd.admit("2001:db8::1") for _ in range(3)]
    visits.append(crowd.admit("2001:db8::2"))  # of the same /64
    assert crowd.admit("2001:db8::3") == PEER_FULL
    visits.append(crowd.admit("2001:db8::1"))
    assert crowd.admit("2001:db8::1") == FULL
    proxied.take(Terms.read(GatewaySettings(**bounds)))  # type: ignore[arg-type]
    for visit in visits:  # each gives back what it took, whoever is trusted now
        assert isinstance(visit, Visit)
        visit.leave()
    assert (crowd.size, dict(crowd._by_peer)) == (0, {})
    assert isinstance(crowd.admit("2001:db8::1"), Visit)
    assert crowd.admit("2001:db8::1") == PEER_FULL


def test_what_is_no_network_is_refused_when_the_configuration_is_read() -> None:
    good = "10.0.0.1,10.1.0.0/16,2001:db8::1,2001:db8::/32"
    assert len(load(None, {"BATON_GATEWAY__TRUSTED_PROXIES": good}).gateway.trusted_proxies) == 4
    neither = "is no address or network; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
    bad = "proxy.example,10.0.0.1/8,10.0.0.0/33,fe80::1%eth0,::ffff:10.0.0.1,10.0.0.1:80"
    with pytest.raises(ConfigError) as refused:
        load(None, {"BATON_GATEWAY__TRUSTED_PROXIES": bad})
    assert refused.value.faults == [
        f"gateway.trusted_proxies: 'proxy.example' {neither}",
        "gateway.trusted_proxies: '10.0.0.1/8' has bits beyond its prefix; write 10.0.0.0/8, or the address alone",
        f"gateway.trusted_proxies: '10.0.0.0/33' {neither}",
        "gateway.trusted_proxies: 'fe80::1%eth0' names a zone; leave it out",
        "gateway.trusted_proxies: '::ffff:10.0.0.1' is IPv4 written as IPv6; write it as IPv4",
        f"gateway.trusted_proxies: '10.0.0.1:80' {neither}",
    ]
