"""Which reply subjects are inboxes, and who is counted how often."""

from typing import Any

import msgpack
import pytest

from services.gateway.nats.clients import Clients
from services.gateway.nats.entrance import INBOX
from services.gateway.nats.reading import read_cancel
from shared.bus import Delivery
from shared.errors import BadRequest, BatonError

PROBES = "_INBOX_gateway.probes"


def opened() -> tuple[Clients, list[BatonError]]:
    """Open one request of a client; what it was ended with."""
    ends: list[BatonError] = []
    clients = Clients(lambda *_: None, PROBES)
    client = clients.open("_INBOX.a.1", "cmpl-1", streamed=True)
    client.begin(ends.append)
    return clients, ends


@pytest.mark.parametrize(
    "subject", ["_INBOX.a", "_INBOX.a.b-c.D_9", "_INBOX.$x.1", f"_INBOX.{'a' * 240}", "_INBOX.user.abc.123"]
)
def test_an_inbox_of_a_client_is_one(subject: str) -> None:
    assert INBOX.match(subject)


@pytest.mark.parametrize(
    "subject",
    [
        *("", "_INBOX", "_INBOX.", "_INBOX..a", "_INBOX.a.", "_INBOX.a..b", "_INBOX.a b", "_INBOX.a\n", "_INBOX.*"),
        *("_INBOX.>", "_INBOX_decode.a", "x_INBOX.a", f"_INBOX.{'a' * 241}", f"_INBOX{'.a' * 121}"),
    ],
)
def test_what_nats_would_not_deliver_to_a_client_is_no_inbox(subject: str) -> None:
    assert not INBOX.match(subject)


def test_a_request_that_is_cancelled_twice_ends_once_and_counts_once() -> None:
    clients, ends = opened()
    assert clients.cancel("cmpl-1") == (["cmpl-1"], 1)
    assert clients.cancel("cmpl-1") == (["cmpl-1"], 0)  # asked again, since the answer was lost: the same answer
    assert len(ends) == 1


def test_a_client_that_cancels_and_goes_is_counted_as_one_that_cancelled() -> None:
    clients, ends = opened()
    (client,) = clients._by_token.values()
    clients.cancel("_INBOX.a.1")
    assert not clients.on_probe(Delivery(f"{PROBES}.{client.token}", b"", headers={"Status": "503"}))
    assert len(ends) == 1


@pytest.mark.parametrize("version", ["x" * 500_000, b"\x00" * 300_000, {str(n): n for n in range(9999)}])
def test_a_version_that_is_none_is_not_quoted_at_length(version: Any) -> None:
    with pytest.raises(BadRequest, match="version 1") as refused:
        read_cancel(msgpack.packb({"v": version, "cancel": "x"}))
    assert len(str(refused.value)) < 200
