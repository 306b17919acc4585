"""The dashboard: what is shown of the fleet, what is sent of it, which orders are taken, and what the monitor saw."""

import base64
import hashlib
import json
import re

import pytest

from services.monitor.dashboard.commands import read, right, stranger
from services.monitor.dashboard.figures import Advice, DrainOrder, Figures
from services.monitor.dashboard.history import POINTS, STEP_S, History
from services.monitor.dashboard.page import PAGE, POLICY, SCRIPT, STYLE
from services.monitor.dashboard.parts import GroupPart, InstancePart, Snapshot
from services.monitor.dashboard.rates import Rates
from services.monitor.dashboard.snapshot import snapshot
from services.monitor.sight import FORGET_S, MOST, Sight
from shared.config import ScenarioSettings
from shared.errors import BadRequest
from shared.messages import (
    ExplainOrder,
    Group,
    GroupPhase,
    GroupTraffic,
    InstanceRecord,
    Link,
    Links,
    Member,
    Revision,
    Role,
    ScaleOrder,
    ScenarioMap,
    State,
    Status,
    Traffic,
    UpgradeOrder,
)
from shared.report import report
from tests.fakes import Clock

EPOCH = (1, 1)


def _record(name: str, role: Role, **more: object) -> InstanceRecord:
    return InstanceRecord(name, role, more.pop("state", State.READY), EPOCH, "chat", "main", **more)  # type: ignore[arg-type]


def _chat(**more: object) -> ScenarioMap:
    group = Group(
        "main",
        [Member("p1", EPOCH), Member("p2", EPOCH, joined=False)],
        [Member("d1", EPOCH)],
        prefills=2,
        decodes=3,
        phase=GroupPhase.CONNECT,
    )
    return ScenarioMap("chat", 4, EPOCH, [group], **more)  # type: ignore[arg-type]


def _show(records: list[InstanceRecord], figures: Figures, *maps: ScenarioMap, looks: int = 1) -> Snapshot:
    rates = Rates()
    for at in range(looks):
        rates.see(figures, float(at))
    said = report(records, {one.id for one in records}, maps)
    return snapshot(said, figures, rates, "monitor-1", leading=True)


def _group(parts: Snapshot) -> GroupPart:
    part = parts["group chat main"]
    assert "links" in part
    return part


def _places(row: list[InstancePart]) -> list[tuple[str, str, str]]:
    return [(one["id"], one["place"], one["state"]) for one in row]


def test_a_monitor_that_knows_nothing_shows_an_empty_fleet() -> None:
    parts = _show([], Figures())
    assert list(parts) == ["fleet"]
    assert (parts["fleet"]["monitor"], parts["fleet"]["ready"], parts["fleet"]["standby"]) == ("monitor-1", 0, [])  # type: ignore[typeddict-item]


def test_members_those_that_join_those_that_leave_and_the_unseen_are_told_apart() -> None:
    records = [
        _record("p1", Role.PREFILL),
        _record("p2", Role.PREFILL, state=State.STARTING),
        _record("p3", Role.PREFILL, state=State.DRAINING),
        _record("d9", Role.DECODE, state=State.FAILED, reason="silent"),
        InstanceRecord("s1", Role.STANDBY, State.READY, EPOCH),
    ]
    parts = _show(records, Figures(), _chat())
    assert _places(_group(parts)["prefill"]) == [
        ("p1", "member", "ready"),
        ("p2", "joining", "starting"),
        ("p3", "outside", "draining"),
    ]
    assert _places(_group(parts)["decode"]) == [("d1", "member", "unknown")]
    fleet, scenario = parts["fleet"], parts["scenario chat"]
    assert "astray" in fleet
    assert "advice" in scenario
    assert _places(fleet["astray"]) == [("d9", "outside", "failed")]
    assert _places(fleet["standby"]) == [("s1", "outside", "ready")]
    assert (scenario["prefill"], scenario["decode"], scenario["per_group"]) == (1, 1, [2, 3])


def test_a_scenario_shows_the_model_of_its_target_its_objectives_and_what_its_controller_wants() -> None:
    advice = Advice("auto", 3, 2, "prefill", 6.1234, 11.8, reasons=("because",))
    figures = Figures(scenarios={"chat": ScenarioSettings("small", "sim", ttft_slo_ms=900)}, steering={"chat": advice})
    revisions = [Revision(0), Revision(2, "large")]
    scenario = _show([], figures, _chat(revisions=revisions, target=2))["scenario chat"]
    assert "advice" in scenario
    assert scenario["advice"] is not None
    assert (scenario["model"], scenario["engine"], scenario["target"]) == ("large", "sim", 2)
    assert scenario["revisions"] == [{"number": 0, "model": "small"}, {"number": 2, "model": "large"}]
    assert (scenario["ttft"]["slo_ms"], scenario["ttft"]["count"]) == (900, 0)
    assert (scenario["advice"]["prefill_per_s"], scenario["advice"]["reasons"]) == (6.12, ["because"])
    assert not scenario["known"]


def test_links_show_what_flows_and_only_to_decodes_of_the_group() -> None:
    rates, said = Rates(), report([], set(), [_chat()])
    for at in range(3):
        links = [
            Link("d1", EPOCH, verified=True, pushes=2 * at, bytes=4_000_000 * at, push_us=9000 * at),
            Link("gone", EPOCH, bytes=at),
        ]
        figures = Figures(links={"p1": Links("p1", EPOCH, links)})
        rates.see(figures, float(at))
    group = _group(snapshot(said, figures, rates, "m", leading=False))
    assert group["links"] == [
        {"prefill": "p1", "decode": "d1", "verified": True, "problem": "", "bytes_per_s": 4_000_000, "push_ms": 4.5}
    ]
    assert group["bytes_per_s"] == 4_000_000


def test_history_has_a_point_each_step_and_no_more_than_five_minutes() -> None:
    history = History()
    traffic = [Traffic("g1", EPOCH, "chat", 1, groups=[GroupTraffic("main")])]
    parts = _show([], Figures(traffic=traffic), _chat(), looks=2)
    assert list(history.see(parts, 0.0, 100.0)) == ["chat"]
    assert history.see(parts, STEP_S / 2, 101.0) == {}
    for step in range(1, POINTS + 20):
        history.see(parts, step * STEP_S, 100.0 + step * STEP_S)
    row = history.all()["chat"]
    assert (len(row), row[-1]["at"]) == (POINTS, int(100 + (POINTS + 19) * STEP_S))
    assert (row[-1]["arriving"], row[-1]["ttft"]) == (0.0, None)
    history.see(_show([], Figures()), 1e6, 1e6)
    assert history.all() == {}


# ---- the page and its policy -----------------------------------------------------------------------------------------


def test_the_policy_lets_in_the_page_s_own_script_and_style_and_nothing_else() -> None:
    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    (script,), (style,) = (re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", PAGE, re.DOTALL) for tag in ("script", "style"))
    assert f"script-src {hashed(script)};" in POLICY
    assert f"style-src {hashed(style)};" in POLICY
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY


def test_nothing_comes_from_elsewhere_and_no_markup_is_made_of_text() -> None:
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#|/status|/metrics)""", PAGE) == []
    assert re.findall(r"\son\w+\s*=\s*[\"']", PAGE.replace(SCRIPT, "")) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", SCRIPT) == []
    assert "url(" not in STYLE.replace("url(#", "")


# ---- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ({"order": "scale", "scenario": "chat", "prefill": 2, "dry_run": True}, ScaleOrder("chat", 2, dry_run=True)),
        ({"order": "upgrade", "scenario": "chat", "options": {"a": 1}}, UpgradeOrder("chat", options={"a": 1})),
        ({"order": "upgrade", "scenario": "chat", "back": True}, UpgradeOrder("chat", back=True)),
        ({"order": "explain", "scenario": "chat"}, ExplainOrder("chat")),
        ({"order": "drain", "instance": "decode-1"}, DrainOrder("decode-1")),
    ],
)
def test_an_order_is_read(text: dict[str, object], order: object) -> None:
    assert read(json.dumps(text).encode()) == order


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"\xff", "JSON object"),
        (b"[" * 100_000, "JSON object"),
        (b"[]", "JSON object"),
        (b'{"order": "reboot"}', "one of scale, upgrade, explain, drain"),
        (b'{"order": ["scale"]}', "one of scale"),
        (b'{"order": "scale"}', "scenario"),
        (b'{"order": "scale", "scenario": "chat", "prefil": 2}', "does not know prefil"),
        (b'{"order": "scale", "scenario": "chat", "prefill": -1}', "prefill"),
        (b'{"order": "scale", "scenario": "chat.>", "prefill": 1}', "name of a scenario"),
        (b'{"order": "drain", "instance": "_control.*"}', "id of an instance"),
        (b'{"order": "drain", "instance": 7}', "instance"),
    ],
)
def test_what_is_no_order_is_refused_with_its_fault(body: bytes, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        read(body)


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"Origin": "http://monitor:8010"}, False),
        ({"Origin": "https://MONITOR:8010", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://monitor:9999"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_another_site_s_page_is_a_stranger(headers: dict[str, str], foreign: bool) -> None:  # noqa: FBT001
    assert stranger(headers, "monitor:8010") is foreign


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("Bearer s\u00e9cret", True),
        ("bearer s\u00e9cret", True),
        ("Bearer secret", False),
        ("Basic s\u00e9cret", False),
        ("s\u00e9cret", False),
        ("", False),
        ("Bearer \udcff", False),
    ],
)
def test_the_token_is_asked_for_whole(header: str, good: bool) -> None:  # noqa: FBT001
    assert right(header, "s\u00e9cret") is good


# ---- what the monitor saw --------------------------------------------------------------------------------------------


def _status(
    instance: str = "d1", *, counter: int = 1, number: int = 1, state: State = State.READY, free: int = 2
) -> Status:
    return Status(instance, (1, counter), Role.DECODE, state, "chat", "main", 8, free, number=number)


def test_an_older_status_that_comes_late_is_ignored() -> None:
    sight = Sight(Clock())
    assert sight.see(_status(number=2))
    assert not sight.see(_status(number=1))
    assert not sight.see(_status(number=2))
    assert sight.see(_status(counter=2, number=1))
    assert not sight.see(_status(counter=1, number=99))


def test_the_late_are_those_that_live_and_are_silent_but_not_forgotten() -> None:
    clock = Clock()
    sight = Sight(clock)
    sight.see(_status("d1"))
    sight.see(_status("d2", state=State.STOPPED))
    clock.advance(1.0)
    sight.see(_status("d3"))
    assert [one.instance for one in sight.late(0.5)] == ["d1"]
    clock.advance(FORGET_S - 0.5)
    assert [one.instance for one in sight.late(0.5)] == ["d3"]
    sight.forget()
    assert set(sight.statuses) == {"d3"}


def test_a_sender_of_made_up_names_does_not_fill_the_memory() -> None:
    sight = Sight(Clock())
    for number in range(MOST + 10):
        sight.see(_status(f"d{number}"))
    assert (len(sight.statuses), sight.refused) == (MOST, 10)
    assert sight.see(_status("d1", number=2))


def test_a_record_is_freshened_by_what_was_heard_since() -> None:
    sight = Sight(Clock())
    record = InstanceRecord("d1", Role.DECODE, State.STARTING, (1, 1), pid=7)
    sight.see(_status("d1", free=3))
    (joined,) = sight.freshened({"d1": record})
    assert (joined.state, joined.load, joined.pid) == (State.READY, 5, 7)


def test_a_failure_in_the_record_stands_until_a_later_epoch_speaks() -> None:
    sight = Sight(Clock())
    failed = InstanceRecord("d1", Role.DECODE, State.FAILED, (1, 1), reason="silent")
    sight.see(_status("d1", number=1))
    assert sight.freshened({"d1": failed}) == [failed]
    sight.see(_status("d1", counter=2))
    (joined,) = sight.freshened({"d1": failed})
    assert (joined.state, joined.epoch, joined.reason) == (State.READY, (1, 2), "")
