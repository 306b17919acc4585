"""Connections kept between pushes: the newest first, a bound, and none that is dead."""

import socket
from collections.abc import Iterator

import pytest

from shared.kv.link import Link
from shared.kv.pool import Pool
from shared.messages import Endpoint
from tests.waiting import until

HERE, THERE = Endpoint("tcp", "127.0.0.1:1"), Endpoint("tcp", "127.0.0.1:2")


@pytest.fixture
def pairs() -> Iterator[list[tuple[Link, socket.socket]]]:
    pairs = [(Link(ours), theirs) for ours, theirs in (socket.socketpair() for _ in range(3))]
    yield pairs
    for link, theirs in pairs:
        link.close()
        theirs.close()


def is_closed(link: Link) -> bool:
    return link._sock.fileno() < 0


async def test_the_connection_used_last_is_taken_first_and_only_once(pairs: list[tuple[Link, socket.socket]]) -> None:
    pool = Pool(3)
    (first, _), (second, _), (elsewhere, _) = pairs
    for endpoint, link in ((HERE, first), (HERE, second), (THERE, elsewhere)):
        pool.put(endpoint, link)
    assert [pool.take(HERE), pool.take(HERE), pool.take(HERE), pool.take(THERE)] == [second, first, None, elsewhere]
    assert len(pool) == 0


async def test_beyond_its_bound_the_longest_idle_is_closed(pairs: list[tuple[Link, socket.socket]]) -> None:
    pool = Pool(2)
    for link, _ in pairs:
        pool.put(HERE, link)
    assert [is_closed(link) for link, _ in pairs] == [True, False, False]
    pool.close()


async def test_what_its_peer_closes_is_dropped(pairs: list[tuple[Link, socket.socket]]) -> None:
    pool = Pool(2)
    (link, theirs), *_ = pairs
    pool.put(HERE, link)
    theirs.close()
    await until(lambda: is_closed(link), "the connection is closed")
    assert pool.take(HERE) is None


async def test_a_closed_pool_keeps_nothing(pairs: list[tuple[Link, socket.socket]]) -> None:
    pool = Pool(2)
    (before, _), (after, _), _ = pairs
    pool.put(HERE, before)
    pool.close()
    pool.close()
    pool.put(HERE, after)
    assert (is_closed(before), is_closed(after), len(pool)) == (True, True, 0)
