"""What an instance becomes by order: the same id, its role's command line, an environment that can be taken back."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.becoming import ORIGINALS, command, environment
from shared.config import load
from shared.config.groups import in_group
from shared.config.reader import parsed
from shared.config.writer import written
from shared.errors import BadRequest
from shared.messages import AssignRole, Revision, Role

ORDER = AssignRole(Role.DECODE, "chat", "main")
AWAY = AssignRole(Role.STANDBY, "_", "_")
ENVIRON = {
    "PATH": "/bin",
    "BATON_NATS__URL": "nats://127.0.0.1:4222",
    "BATON_SCENARIO__CHAT__MODEL": "m",
    "BATON_SCENARIO__CHAT__ENGINE_OPTIONS__DTYPE": "float32",
    **{f"BATON_NATS__CREDENTIALS__{role.value.upper()}__USER": role.value for role in Role},
    **{f"BATON_NATS__CREDENTIALS__{role.value.upper()}__PASSWORD": f"p-{role.value}" for role in Role},
}


def revised(number: int, model: str = "", options: dict[str, Any] | None = None) -> AssignRole:
    return AssignRole(Role.PREFILL, "chat", "main", Revision(number, model, options or {}))


def test_the_command_keeps_the_id_and_the_file_and_nothing_of_the_old_place() -> None:
    arguments = ["--config", "/etc/baton.toml", "--id", "other", "--scenario=code", "--group", "old"]
    start, file = [sys.executable, "-m"], ["--config", "/etc/baton.toml", "--id", "worker-1"]
    place = ["--scenario", "chat", "--group", "main"]
    assert command(ORDER, "worker-1", arguments) == [*start, "services.decode", *file, *place]
    assert command(AWAY, "worker-1", arguments) == [*start, "services.standby", *file]
    assert command(AWAY, "worker-1", []) == [*start, "services.standby", "--id", "worker-1"]


def test_the_environment_says_the_new_place_and_a_standby_has_none() -> None:
    ours = environment(ORDER, "worker-1", ENVIRON)
    config = load(None, ours)
    assert (config.instance.id, config.instance.scenario, config.instance.group) == ("worker-1", "chat", "main")
    config = load(None, environment(AWAY, "worker-1", ours))
    assert (config.instance.id, config.instance.scenario, config.instance.group) == ("worker-1", "", "")


def test_the_environment_keeps_the_credentials_of_all_that_it_may_become_later_and_no_others() -> None:
    kept = environment(ORDER, "worker-1", ENVIRON)
    passwords = {text for name, text in kept.items() if name.endswith("__PASSWORD")}
    assert passwords == {"p-prefill", "p-decode", "p-standby"}
    assert kept["PATH"] == "/bin"


def test_a_revision_wins_until_another_takes_it_back() -> None:
    first = environment(revised(3, "/models/m2", {"dtype": "bfloat16", "layers": [1, 2]}), "w", ENVIRON)
    config = load(None, first)
    chat = config.scenarios["chat"]
    assert (config.instance.revision, chat.model) == (3, "/models/m2")
    assert chat.engine_options == {"dtype": "bfloat16", "layers": [1, 2]}

    second = environment(revised(4, options={"block_size": 32}), "w", first)
    chat = load(None, second).scenarios["chat"]
    assert (chat.model, chat.engine_options) == ("m", {"dtype": "float32", "block_size": 32})

    back = environment(revised(0), "w", second)
    chat = load(None, back).scenarios["chat"]
    assert (chat.model, chat.engine_options) == ("m", {"dtype": "float32"})
    ours = {name for name in back if name.startswith("BATON_INSTANCE__")} | {ORIGINALS}
    others = [f"BATON_NATS__CREDENTIALS__{role}__" for role in ("GATEWAY", "MONITOR")]
    expected = {name: text for name, text in ENVIRON.items() if not name.startswith(tuple(others))}
    assert {name: text for name, text in back.items() if name not in ours} == expected


@pytest.mark.parametrize("options", [{"Big": 1}, {"a__b": 1}, {"a-b": 1}, {"": 1}, {"a": None}, {"a": {1: 2}}])
def test_options_that_no_variable_can_carry_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"the engine option .* cannot be given by a revision"):
        environment(revised(1, options=options), "w", ENVIRON)


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read_as_the_same(value: object) -> None:
    text = written(value)
    assert parsed(text) == value
    assert "\x00" not in text  # the environment holds none
    assert "\n" not in text


def test_a_groups_own_engine_options_win_over_the_scenarios() -> None:
    tables = {
        "BATON_SCENARIO__CHAT__MODEL": "m",
        "BATON_SCENARIO__CHAT__ENGINE_OPTIONS__DTYPE": "float32",
        "BATON_SCENARIO__CHAT__ENGINE_OPTIONS__THREADS": "1",
        "BATON_SCENARIO__CHAT__GROUP__TP8__ENGINE_OPTIONS__THREADS": "8",
    }
    chat = load(None, tables).scenarios["chat"]
    assert in_group(chat, "tp8").engine_options == {"dtype": "float32", "threads": 8}
    assert in_group(chat, "tp8-r2") == in_group(chat, "tp8-canary-r2") == in_group(chat, "tp8")  # while it is upgraded
    assert in_group(chat, "main") is chat
