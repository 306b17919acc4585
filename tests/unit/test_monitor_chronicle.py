"""The journal's sentences: what the fleet's decider asks for, told once and plainly."""

from typing import Any

import pytest

from services.monitor.chronicle import WORDS, Chronicle
from services.monitor.journal import Journal
from shared.messages import Group, Member, Revision, Role, ScenarioMap, State, Status
from shared.policy.fleet.events import (
    Action,
    Assign,
    Cause,
    HeldOff,
    Place,
    Provide,
    PublishMap,
    Release,
    Retire,
    SendDrain,
    Substituted,
)

E = (1, 1)


def _map(*decodes: str) -> ScenarioMap:
    return ScenarioMap("chat", 1, E, [Group("main", [Member("p1", E)], [Member(name, E) for name in decodes])])


class Room:
    """A chronicle over a map with one prefill and one decode."""

    def __init__(self) -> None:
        nowhere: Any = None
        self.journal = Journal(nowhere)
        names = (("p1", Role.PREFILL), ("d1", Role.DECODE), ("s1", Role.STANDBY))
        statuses = {
            name: Status(name, E, role, State.READY, *(("chat", "main") if role is not Role.STANDBY else ()))
            for name, role in names
        }
        self.chronicle = Chronicle(self.journal, statuses)
        self.chronicle.begin("m1", [_map("d1")])

    def told(self, *actions: Action) -> list[tuple[str, str, str]]:
        last = self.journal.since()[-1].number
        self.chronicle.tell(list(actions))
        return [(one.happening.scenario, one.happening.kind, one.happening.text) for one in self.journal.since(last)]


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_lost_member_is_told_once_with_the_cause(room: Room) -> None:
    lost = room.told(PublishMap(_map(), Cause.SILENT), Retire("d1", E, Cause.SILENT))
    assert lost == [("chat", "lost", "d1 was taken for lost: nothing was heard of it for too long")]
    assert room.told(PublishMap(_map(), Cause.SILENT)) == []


def test_a_standby_that_is_sent_and_arrives(room: Room) -> None:
    place = Place("chat", "main", Role.DECODE)
    assert room.told(
        Assign("s1", Role.DECODE, "chat", "main", Cause.SILENT, Revision(2)),
        PublishMap(_map("d1", "s1"), Cause.READY),
        Substituted(place, "s1", Cause.SILENT, (("ordered", 0.5), ("joined", 1.25))),
    ) == [
        ("chat", "assigned", "s1 is to become decode of group main, revision 2: nothing was heard of it for too long"),
        ("chat", "joined", "s1 has joined group main as decode"),
        (
            "chat",
            "substituted",
            (
                "s1 has taken the place of a decode of group main within 1.75 s (ordered 0.50 s, joined 1.25 s);"
                " it was missing because: nothing was heard of it for too long"
            ),
        ),
    ]


def test_a_flip_is_one_entry_though_the_member_leaves_the_map(room: Room) -> None:
    order = Assign("d1", Role.PREFILL, "chat", "main", Cause.PLANNED)
    assert room.told(PublishMap(_map(), Cause.SURPLUS), order) == [
        ("chat", "flip", "d1 changes from decode of main to prefill of group main: the plan has changed")
    ]
    back = Assign("p1", Role.STANDBY, "_", "_", Cause.SURPLUS)
    assert room.told(back)[0][2] == "p1 is to become a standby: its group has more than it is to have"


def test_drains_and_flapping_are_told_and_wishes_for_instances_are_not(room: Room) -> None:
    assert [kind for _, kind, _ in room.told(SendDrain("d1", Cause.DRAINING), SendDrain("p1", Cause.STUCK))] == [
        "drain"
    ]
    assert room.told(HeldOff("d1", 3, 60.0))[0][2] == "d1 was lost 3 times lately and gets no place for 60 s"
    assert room.told(Provide(2), Release("s1")) == []


def test_every_cause_has_words() -> None:
    assert set(WORDS) == set(Cause)
