"""What the journal says of a map that follows another."""

from services.monitor.changes import Change, changes
from shared.messages import Group, GroupPhase, Member, ScenarioMap

E = (1, 1)
P1, D1 = Member("p1", E), Member("d1", E)
D2, D2_NEW = Member("d2", E), Member("d2", E, joined=False)


def _map(*groups: Group, target: int = 0) -> ScenarioMap:
    return ScenarioMap("chat", 1, E, list(groups), target=target)


def test_a_group_comes_with_its_size_its_phase_and_its_members() -> None:
    group = Group("main", [P1], [D2_NEW], GroupPhase.CONNECT, 1, 2, revision=3)
    assert changes(None, _map(group)) == [
        Change(
            "group",
            "group main is set up with 1 prefill and 2 decodes, revision 3:"
            " every prefill pushes a buffer to every decode, to verify the pair",
        ),
        Change("joined", "p1 has joined group main as prefill"),
        Change("joining", "d2 is in group main as decode; its links are being verified"),
    ]


def test_the_same_map_again_says_nothing() -> None:
    whole = _map(Group("main", [P1], [D1, D2], prefills=1, decodes=2))
    assert changes(whole, whole) == []
    later = _map(Group("main", [Member("p1", (1, 2))], [D1, D2], prefills=1, decodes=2))
    assert changes(whole, later) == [], "a new life of the same member is no change of the group"


def test_joining_then_joined() -> None:
    before, after = _map(Group("main", [P1], [D1, D2_NEW])), _map(Group("main", [P1], [D1, D2]))
    assert changes(before, after) == [Change("joined", "d2 has joined group main as decode")]
    assert changes(after, before) == [], "it is verified anew; it has not left"


def test_who_leaves_is_named_unless_it_is_told_elsewhere() -> None:
    before, after = _map(Group("main", [P1], [D1, D2])), _map(Group("main", [P1], []))
    assert changes(before, after, told={"d1"}) == [Change("left", "d2 is no decode of group main any more")]


def test_one_that_changes_its_role_leaves_and_comes() -> None:
    before = _map(Group("main", [P1, Member("d1", E)], [D2]))
    after = _map(Group("main", [P1], [D2, Member("d1", (1, 2), joined=False)]))
    assert [change.kind for change in changes(before, after)] == ["left", "joining"]


def test_size_phase_revision_canary_and_target_are_told() -> None:
    before = _map(Group("main", [P1], [D1], prefills=1, decodes=1))
    after = _map(Group("main", [P1], [D1], GroupPhase.CLOSING, prefills=1, decodes=2, revision=1, canary=10), target=1)
    assert [change.kind for change in changes(before, after)] == ["plan", "phase", "revision", "canary", "revision"]
    assert [change.kind for change in changes(after, _map(target=1))] == ["group", "left", "left"]
