"""What `baton up` would start: names, roles, environments, worked out without starting anything."""

import dataclasses
from pathlib import Path

import pytest

from services.local.plan import DEFAULT_MODEL, Links, Plan, Start, Wishes
from shared.config import load
from shared.errors import ConfigError
from shared.messages import Role

LINKS = Links("nats://127.0.0.1:4222", "redis://:pw@127.0.0.1:6379/0", {role.value: f"p-{role.value}" for role in Role})
TWO = '[scenario.chat]\nmodel = "a"\n[scenario.code]\nmodel = "b"\nprefill = 2\ndecode = 0\n'


def _environ(plan: Plan, start: Start) -> dict[str, str]:
    return dict(plan.command(start, LINKS, Path("/logs")).env)


def test_without_a_configuration_the_default_model_is_served_by_one_of_each_worker() -> None:
    plan = Plan(Wishes(), {})
    assert plan.config.scenarios["chat"].model == DEFAULT_MODEL
    assert plan.config.scenarios["chat"].engine == "torch"
    assert plan.starts(8000, [9], 8010) == [
        Start("prefill-1", Role.PREFILL, "chat", group="main"),
        Start("decode-1", Role.DECODE, "chat", group="main"),
        Start("monitor-1", Role.MONITOR, port=8010),
        Start("gateway-1", Role.GATEWAY, port=8000, health_port=9),
        Start("standby-1", Role.STANDBY),
    ]


def test_wishes_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(
        '[gateway]\nport = 1\n[monitor]\nport = 2\n[scenario.chat]\nmodel = "file"\nengine = "vllm"\nprefill = 5\n'
    )
    environ = {"BATON_MONITOR__PORT": "3", "BATON_SCENARIO__CHAT__ENGINE": "torch"}
    config = Plan(Wishes(config=file, port=4, engine="sim", decode=2), environ).config
    scenario = config.scenarios["chat"]
    assert (config.gateway.port, config.monitor.port) == (4, 3)
    assert (scenario.model, scenario.engine, scenario.prefill, scenario.decode) == ("file", "sim", 5, 2)


def test_with_several_scenarios_names_tell_whom_an_instance_serves(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(TWO)
    starts = Plan(Wishes(config=file, standby=0), {}).starts(8000, [9], 8010)
    workers = [(start.id, start.scenario) for start in starts if start.scenario]
    assert workers == [
        ("chat-prefill-1", "chat"),
        ("chat-decode-1", "chat"),
        ("code-prefill-1", "code"),
        ("code-prefill-2", "code"),
    ]


def test_each_group_gets_its_workers_and_each_worker_its_group(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(
        '[scenario.chat]\nmodel = "a"\ngroups = 2\ndecode = 2\n'
        '[scenario.chat.group.wide]\nprefill = 2\nstrategy = "tp8"\n'
    )
    plan = Plan(Wishes(config=file, standby=0), {})
    workers = [start for start in plan.starts(8000, [9], 8010) if start.group]
    assert [(start.group, start.role.value) for start in workers] == [
        *[("main", "prefill"), ("main", "decode"), ("main", "decode")],
        *[("main-2", "prefill"), ("main-2", "decode"), ("main-2", "decode")],
        *[("wide", "prefill"), ("wide", "prefill"), ("wide", "decode"), ("wide", "decode")],
    ]
    assert {load(file, _environ(plan, start)).instance.group for start in workers} == {"main", "main-2", "wide"}


@pytest.mark.parametrize(
    ("said", "environ", "kind", "standbys"),
    [
        ("", {}, "local", 3),
        ("[monitor]\nstandbys = 2\n", {}, "local", 2),
        ("", {"BATON_MONITOR__STANDBYS": "7"}, "local", 7),
        ('[monitor]\nprovisioner = "none"\n', {}, "none", 1),
        ("", {"BATON_MONITOR__PROVISIONER": "none"}, "none", 1),
        ('[monitor]\nprovisioner = "docker"\n', {}, "docker", 1),
    ],
)
def test_the_monitor_asks_baton_up_for_instances_unless_it_is_told_otherwise(
    tmp_path: Path, said: str, environ: dict[str, str], kind: str, standbys: int
) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(f'[scenario.chat]\nmodel = "a"\n{said}')
    plan = Plan(Wishes(config=file, standby=3), environ)
    links = dataclasses.replace(LINKS, directory="/the/state")
    start = next(one for one in plan.starts(8000, [9], 8010) if one.role is Role.MONITOR)
    monitor = load(file, dict(plan.command(start, links, Path("/logs")).env)).monitor
    assert (monitor.provisioner, monitor.standbys) == (kind, standbys)
    assert monitor.provisioner_options == ({"directory": "/the/state"} if kind == "local" else {})


DEVICES = """
[instance]
devices = ["npu:0-7"]
[scenario.chat]
model = "a"
engine = "vllm"
decode = 2
engine_options = {tensor_parallel_size = 2}
"""


def test_standbys_start_where_devices_are_left_for_them(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(DEVICES)
    plan = Plan(Wishes(config=file, standby=3), {})
    links = dataclasses.replace(LINKS, directory="/the/state")
    starts = plan.starts(8000, [9], 8010)
    assert [start.id for start in starts if start.role is Role.STANDBY] == ["standby-1"]
    assert [plan.needs(start) for start in starts] == [2, 2, 2, 0, 0, 2]
    monitor = next(start for start in starts if start.role is Role.MONITOR)
    environ = dict(plan.command(monitor, links, Path("/logs")).env)
    assert load(file, environ).monitor.standbys == 1, "it is not to ask for what cannot be"


def test_more_workers_than_devices_do_not_start(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(DEVICES)
    with pytest.raises(ConfigError, match=r"instance\.devices has 8, and the workers need 10"):
        Plan(Wishes(config=file, prefill=3), {})


def test_a_name_is_never_used_again() -> None:
    plan = Plan(Wishes(), {})
    names = [plan.start(Role.STANDBY).id for _ in range(3)] + [plan.start(Role.GATEWAY).id]
    assert names == ["standby-1", "standby-2", "standby-3", "gateway-1"]


def test_each_instance_gets_the_credentials_of_the_roles_that_it_may_have_only() -> None:
    plan = Plan(Wishes(), {})
    for start in plan.starts(8000, [9], 8010):
        held = {role for role in Role if LINKS.users[role] in _environ(plan, start).values()}
        transient = {Role.PREFILL, Role.DECODE, Role.STANDBY}
        assert held == (transient if start.role in transient else {start.role})


def test_what_an_instance_is_given_is_a_valid_configuration_for_it() -> None:
    plan = Plan(Wishes(port=9000), {"BATON_FLEET__ATTEMPTS": "2"})
    for start in plan.starts(9000, [9], 9010):
        config = load(None, _environ(plan, start))
        assert (config.instance.id, config.instance.scenario) == (start.id, start.scenario)
        assert config.nats.credentials_for(start.role) == (start.role, LINKS.users[start.role])
        assert config.redis.url == LINKS.redis_url
        assert config.fleet.attempts == 2
        assert config.scenarios["chat"].model == DEFAULT_MODEL
    assert load(None, _environ(plan, plan.start(Role.GATEWAY, port=9000))).gateway.port == 9000
    assert load(None, _environ(plan, plan.start(Role.MONITOR, port=9010))).monitor.port == 9010


def test_passwords_do_not_show_when_a_command_is_printed() -> None:
    plan = Plan(Wishes(), {})
    shown = repr(plan.command(plan.start(Role.GATEWAY), LINKS, Path("/logs"))) + repr(LINKS)
    assert "p-gateway" not in shown


def test_a_model_directory_is_found_from_wherever_the_children_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    plan = Plan(Wishes(model="tiny"), {})
    assert plan.config.scenarios["chat"].model == str(tmp_path / "tiny")


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(Wishes(port=70_000), {"BATON_MONITOR__PORT": "x", "BATON_NOWHERE__X": "1"})
    assert len(caught.value.faults) == 3


def test_one_port_for_two_servers_is_refused() -> None:
    with pytest.raises(ConfigError, match="both 8010"):
        Plan(Wishes(port=8010), {})


def test_a_time_table_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    wrong = 'timetable = ["0 25 * * * = 2"]'
    file.write_text(f'[scenario.chat]\nmodel = "a"\n[scenario.chat.scale]\n{wrong}\n')
    with pytest.raises(ConfigError, match=r"scenario\.chat\.scale: .*25"):
        Plan(Wishes(config=file), {})


def test_a_file_without_scenarios_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text("[gateway]\nport = 1\n")
    with pytest.raises(ConfigError, match="there is no scenario"):
        Plan(Wishes(config=file), {})


def test_threads_of_one_roles_workers_do_not_outnumber_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    plan = Plan(Wishes(prefill=1, decode=3), {})
    assert _environ(plan, plan.start(Role.DECODE, "chat"))["OMP_NUM_THREADS"] == "2"
    plan = Plan(Wishes(prefill=1, decode=1), {})
    assert _environ(plan, plan.start(Role.PREFILL, "chat"))["OMP_NUM_THREADS"] == "8"
    plan = Plan(Wishes(prefill=9, decode=9), {"OMP_NUM_THREADS": "5"})
    assert _environ(plan, plan.start(Role.DECODE, "chat"))["OMP_NUM_THREADS"] == "5"


def test_several_gateways_share_the_port_and_have_health_ports_of_their_own() -> None:
    plan = Plan(Wishes(gateways=2, standby=0), {})
    gateways = [start for start in plan.starts(8000, [9, 10], 8010) if start.role is Role.GATEWAY]
    settings = [load(None, _environ(plan, start)) for start in gateways]
    assert [(one.gateway.port, one.gateway.reuse_port) for one in settings] == [(8000, True), (8000, True)]
    assert [one.instance.health_port for one in settings] == [9, 10]
    assert not load(None, _environ(Plan(Wishes(), {}), gateways[0])).gateway.reuse_port  # alone, it shares with nobody
