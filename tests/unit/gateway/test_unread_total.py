"""What all clients together leave unread is bounded: those that leave the most go first."""

from dataclasses import replace

from services.gateway.http.cors import Cors
from services.gateway.http.crowd import Crowd
from services.gateway.http.terms import Terms
from shared.config import GatewaySettings


class Reader:
    """A connection whose client leaves so much unread."""

    def __init__(self, unread: int) -> None:
        self.left = unread
        self.given_up = False

    def unread(self) -> int:
        return self.left

    def head_is_late(self) -> None:
        raise AssertionError("it sent its head")

    def give_up(self) -> None:
        self.given_up = True


def a_crowd(total: int, *readers: Reader) -> Crowd:
    settings = replace(GatewaySettings(), max_unsent_total=total, max_connections=100, max_connections_per_peer=100)
    crowd = Crowd(Terms(settings, Cors(()), None))
    for reader in readers:
        crowd.blocked(reader)
    return crowd


def test_within_the_bound_nobody_is_cut() -> None:
    readers = [Reader(400_000) for _ in range(5)]
    crowd = a_crowd(2_000_000, *readers)
    crowd.sweep()
    assert not any(reader.given_up for reader in readers)


def test_beyond_it_those_that_leave_the_most_unread_are_cut_until_the_rest_fits() -> None:
    readers = [Reader(size) for size in (900_000, 100_000, 800_000, 300_000)]
    crowd = a_crowd(500_000, *readers)
    crowd.sweep()
    assert [reader.given_up for reader in readers] == [True, False, True, False]
    assert crowd.counts.readers_cut == 2
    crowd.sweep()
    assert crowd.counts.readers_cut == 2


def test_a_bound_that_one_client_exceeds_cuts_that_one() -> None:
    readers = [Reader(900_000), Reader(1)]
    a_crowd(500_000, *readers).sweep()
    assert [reader.given_up for reader in readers] == [True, False]
