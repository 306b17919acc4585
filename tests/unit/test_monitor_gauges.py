"""The monitor's metrics of maps and controllers, and the one sentence that says how a scenario stands."""

from prometheus_client import CollectorRegistry, generate_latest

from services.monitor.advice import advice
from services.monitor.gauges import MapGauges, SteeringGauges
from services.monitor.standing import standing
from shared.messages import Group, GroupPhase, Member, ScenarioMap
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.figures import GroupFigures, ScenarioFigures

E = (1, 1)
BUSY = GroupFigures("main", n_p=2, n_d=1, t_p=0.2, t_d=2.0, c_p=5.0, c_d=20.0, use_p=0.9, use_d=0.4, rate=9.0)
IDLE = GroupFigures("wide", n_p=1, n_d=1, t_p=0.4, t_d=4.0, c_p=2.5, c_d=10.0, use_p=0.1, use_d=0.2, rate=1.0)


def _map(*groups: Group) -> ScenarioMap:
    return ScenarioMap("chat", 3, E, list(groups))


def test_groups_that_are_gone_leave_no_metric_behind() -> None:
    registry = CollectorRegistry()
    gauges = MapGauges(registry)
    joining = Group("main-2", [], [Member("d1", E, joined=False)], GroupPhase.LOAD, 1, 1)
    gauges.show(_map(Group("main", [Member("p1", E)], [], prefills=1, decodes=2), joining))
    text = generate_latest(registry).decode()
    assert 'baton_map_wanted{group="main",role="decode",scenario="chat"} 2.0' in text
    assert 'baton_map_members{group="main-2",role="decode",scenario="chat"} 1.0' in text
    assert 'baton_map_joined{group="main-2",role="decode",scenario="chat"} 0.0' in text
    assert 'baton_map_group_open{group="main-2",scenario="chat"} 0.0' in text
    gauges.show(_map(Group("main", [Member("p1", E)], [])))
    assert "main-2" not in generate_latest(registry).decode()


def test_what_is_measured_is_shown_by_group_and_role() -> None:
    registry = CollectorRegistry()
    gauges = SteeringGauges(registry)
    gauges.show("chat", {"main": BUSY}, ScenarioFigures(arriving=12.0, capable_p=10.0, capable_d=20.0, members=3))
    gauges.decided("chat", "ratio")
    text = generate_latest(registry).decode()
    for line in (
        'baton_steering_capable{group="main",role="prefill",scenario="chat"} 10.0',
        'baton_steering_capable{group="main",role="decode",scenario="chat"} 20.0',
        'baton_steering_seconds{group="main",scenario="chat",time="prefill"} 0.2',
        'baton_steering_slo_met{group="main",scenario="chat",slo="ttft"} 1.0',
        'baton_steering_phi{scenario="chat"} 3.3333333333333335',
        'baton_steering_decisions_total{kind="ratio",scenario="chat"} 1.0',
    ):
        assert line in text


def test_the_advice_weighs_times_by_what_passed_and_names_the_scarcer_role_of_the_busiest_group() -> None:
    plan = Plan("chat", (GroupPlan("main", 2, 1), GroupPlan("wide", 1, 1)))
    said = advice("auto", plan, [BUSY, IDLE], ScenarioFigures(), upgrade="", reasons=("why",))
    assert (said.prefill, said.decode, said.groups, said.scarcer) == (3, 2, 2, "prefill")
    assert (round(said.prefill_s, 6), round(said.decode_s, 6)) == (0.22, 2.2)
    nothing = advice("auto", plan, [], ScenarioFigures(), upgrade="", reasons=())
    assert (nothing.scarcer, nothing.prefill_s) == ("", 0.0)


def test_one_line_says_how_a_scenario_stands() -> None:
    open_one = Group("main", [Member("p1", E)], [Member("d1", E), Member("d2", E, joined=False)], prefills=1, decodes=2)
    closing = Group("main-2", [Member("p2", E)], [], GroupPhase.CLOSING)
    both = _map(open_one, closing)
    assert standing("chat", both, settled=False, upgrading="") == (
        "chat: main open (1 of 1 prefills, 1 of 2 decodes), main-2 closing (1 members left); on its way"
    )
    assert standing("chat", None, settled=True, upgrading="") == "chat: no group; nothing is on its way"
    assert standing("chat", None, settled=False, upgrading="main is tried").endswith("; upgrade: main is tried")
