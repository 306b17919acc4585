"""What a standby becomes: the same id, its role's command line, and no one else's credentials."""

import sys

from services.standby.__main__ import command, environment
from shared.config import load
from shared.messages import AssignRole, Role

ASSIGNMENT = AssignRole(Role.DECODE, "chat", "main")
ENVIRON = {
    "PATH": "/bin",
    "BATON_NATS__URL": "nats://127.0.0.1:4222",
    "BATON_SCENARIO__CHAT__MODEL": "m",
    **{f"BATON_NATS__CREDENTIALS__{role.value.upper()}__USER": role.value for role in Role},
    **{f"BATON_NATS__CREDENTIALS__{role.value.upper()}__PASSWORD": f"p-{role.value}" for role in Role},
}


def test_the_command_keeps_the_id_and_its_options_win_over_earlier_ones() -> None:
    argv = command(ASSIGNMENT, "standby-1", ["--config", "/etc/baton.toml", "--id", "other"])
    assert argv[:3] == [sys.executable, "-m", "services.decode"]
    assert argv[3:7] == ["--config", "/etc/baton.toml", "--id", "other"]
    assert argv[7:] == ["--id", "standby-1", "--scenario", "chat", "--group", "main"]


def test_the_environment_keeps_the_credentials_of_the_new_role_only() -> None:
    kept = environment(Role.DECODE, ENVIRON)
    assert {text for name, text in kept.items() if name.endswith("__PASSWORD")} == {"p-decode"}
    assert (kept["PATH"], load(None, kept).nats.credentials_for(Role.DECODE)) == ("/bin", ("decode", "p-decode"))
