"""What open pages are told: the whole at first, then what changed; bounded, whatever a viewer does."""

import json
from typing import Any

import pytest

from services.monitor.dashboard.figures import Figures
from services.monitor.dashboard.parts import Snapshot
from services.monitor.dashboard.rates import Rates
from services.monitor.dashboard.snapshot import snapshot
from services.monitor.dashboard.stream import MOST_FRAMES, MOST_HAPPENINGS, MOST_VIEWERS, Live, numbered
from shared.errors import Overloaded
from shared.messages import Happening, InstanceRecord, Role, State
from shared.report import report
from tests.fakes import Clock


class Stand:
    """A fleet of standbys, and happenings, that a test changes."""

    def __init__(self) -> None:
        self.names = ["s1"]
        self.told: list[Happening] = []
        self.clock = Clock()
        self.live = Live(self.see, lambda: self.told, clock=self.clock, wall=lambda: 5.0)

    def see(self, _now: float) -> Snapshot:
        records = [InstanceRecord(name, Role.STANDBY, State.READY, (1, 1)) for name in self.names]
        return snapshot(report(records, set(self.names), []), Figures(), Rates(), "m", leading=True)

    def happen(self, at_ms: int, text: str) -> None:
        self.told.append(Happening(at_ms, "chat", "joined", text))


def _read(frame: bytes | None) -> tuple[str, str, Any]:
    assert frame is not None
    fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
    return fields["event"], fields.get("id", ""), json.loads(fields["data"])


def _texts(whole: dict[str, Any]) -> list[str]:
    return [one["text"] for one in whole["happenings"]]


async def test_a_page_gets_the_whole_then_what_changed_then_what_happened() -> None:
    stand = Stand()
    stand.happen(1, "a")
    stand.live.look()
    viewer = stand.live.admit()
    event, name, whole = _read(await viewer.next())
    assert (event, name, list(whole["parts"]), _texts(whole)) == ("whole", "1-0", ["fleet"], ["a"])
    stand.live.look()
    assert _read(await viewer.next()) == ("state", "", {"at": 5000, "changed": {}, "gone": [], "points": {}})
    stand.names.append("s2")
    stand.happen(1, "b")
    stand.live.look()
    _, _, state = _read(await viewer.next())
    assert [one["id"] for one in state["changed"]["fleet"]["standby"]] == ["s1", "s2"]
    event, name, happening = _read(await viewer.next())
    assert (event, name, happening["text"]) == ("happening", "1-1", "b")


async def test_a_page_that_comes_back_gets_the_happenings_it_missed() -> None:
    stand = Stand()
    for text in "abc":
        stand.happen(ord(text), text)
    stand.live.look()
    assert _texts(_read(await stand.live.admit("98-0").next())[2]) == ["c"]
    assert _texts(_read(await stand.live.admit("never-heard-of").next())[2]) == ["a", "b", "c"]


async def test_a_viewer_that_does_not_keep_up_gets_the_whole_again_and_holds_a_bounded_number_of_frames() -> None:
    stand = Stand()
    stand.live.look()
    viewer = stand.live.admit()
    for at in range(10 * MOST_FRAMES):
        stand.happen(at, f"number {at}")
        stand.live.look()
    assert viewer.waiting <= MOST_FRAMES
    event, _, whole = _read(await viewer.next())
    assert (event, _texts(whole)[-1]) == ("whole", f"number {10 * MOST_FRAMES - 1}")


async def test_no_more_pages_than_the_bound_are_let_in_and_one_that_leaves_makes_room() -> None:
    stand = Stand()
    viewers = [stand.live.admit() for _ in range(MOST_VIEWERS)]
    with pytest.raises(Overloaded, match="close one"):
        stand.live.admit()
    stand.live.dismiss(viewers[0])
    stand.live.dismiss(viewers[0])
    stand.live.admit()
    assert stand.live.viewers == MOST_VIEWERS


async def test_at_the_end_every_stream_ends_even_a_slow_one() -> None:
    stand = Stand()
    stand.live.look()
    slow, quick = stand.live.admit(), stand.live.admit()
    _ = await quick.next()
    for _ in range(MOST_FRAMES + 1):
        stand.live.look()
        _ = await quick.next()
    stand.live.close()
    assert await quick.next() is None
    while await slow.next() is not None:
        pass


async def test_a_silent_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.monitor.dashboard.stream.HEARTBEAT_S", 0.01)
    viewer = Stand().live.admit()
    _ = await viewer.next()
    assert (await viewer.next() or b"").startswith(b":")


def test_happenings_of_one_moment_have_ids_of_their_own_and_the_last_few_are_kept() -> None:
    assert list(numbered([Happening(7, "", "a", ""), Happening(7, "", "a", ""), Happening(8, "", "a", "")])) == [
        "7-0",
        "7-1",
        "8-0",
    ]
    stand = Stand()
    for at in range(2 * MOST_HAPPENINGS):
        stand.happen(at, f"number {at}")
    stand.live.look()
    assert len(stand.live.whole()["happenings"]) == MOST_HAPPENINGS
