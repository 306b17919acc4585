"""Attempts whose gateway is gone run on for the grace, and no longer."""

from shared.messages import Role, State, Status
from shared.policy.orphans import Orphans

PATIENCE_S, GRACE_S = 2.0, 30.0


def status(gateway: str = "g1", epoch: int = 1, state: State = State.READY) -> Status:
    return Status(gateway, (1, epoch), Role.GATEWAY, state)


def waited(orphans: Orphans, seconds: float, gateway: str = "") -> list[tuple[str, int]]:
    due: list[tuple[str, int]] = []
    for _ in range(int(seconds * 2)):
        if gateway:
            orphans.hear(status(gateway))
        due = orphans.sweep(0.5)
    return due


def test_what_a_living_gateway_reads_is_no_orphan() -> None:
    orphans = Orphans(PATIENCE_S, GRACE_S)
    orphans.enter(("r1", 0), "g1")
    assert waited(orphans, 100, "g1") == []
    assert len(orphans) == 0


def test_silence_makes_an_orphan_which_is_given_up_after_the_grace() -> None:
    orphans = Orphans(PATIENCE_S, GRACE_S)
    orphans.enter(("r1", 0), "g1")
    orphans.enter(("r2", 0), "g2")
    assert waited(orphans, PATIENCE_S + 1, "g2") == []
    assert len(orphans) == 1
    assert waited(orphans, GRACE_S, "g2") == [("r1", 0)]
    orphans.exit(("r1", 0), "g1")
    assert waited(orphans, 1, "g2") == []


def test_a_gateway_that_was_only_frozen_has_lost_nothing() -> None:
    orphans = Orphans(PATIENCE_S, GRACE_S)
    orphans.enter(("r1", 0), "g1")
    waited(orphans, PATIENCE_S + GRACE_S - 1)
    orphans.hear(status())
    assert waited(orphans, GRACE_S) == []


def test_another_life_under_the_same_name_reads_nothing_of_before() -> None:
    orphans = Orphans(PATIENCE_S, GRACE_S)
    orphans.hear(status(epoch=1))
    orphans.enter(("old", 0), "g1")
    orphans.hear(status(epoch=1))
    orphans.hear(status(epoch=2))
    orphans.enter(("new", 0), "g1")
    for _ in range(int(GRACE_S * 2) + 1):
        orphans.hear(status(epoch=2))
        due = orphans.sweep(0.5)
    assert due == [("old", 0)]


def test_an_orderly_stop_is_told_and_nothing_waits_for_silence() -> None:
    orphans = Orphans(PATIENCE_S, GRACE_S)
    orphans.enter(("r1", 0), "g1")
    orphans.hear(status(state=State.STOPPED))
    assert waited(orphans, GRACE_S) == []
    assert waited(orphans, 1) == [("r1", 0)]
