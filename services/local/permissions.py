"""Who may say and hear what over NATS: the one definition, rendered as a nats-server configuration.

`baton up` renders it for its embedded server. `deploy/nats/nats.conf` is the same text for containers
(`python -m services.local.permissions > deploy/nats/nats.conf`), and so is `deploy/kubernetes/base/baton.conf`; tests
hold them together. Holds no secret: each user's password is named by an environment variable of the server.

A denied publish looks like a success to its sender, so everything is denied that is not listed here.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared.messages import Role
from shared.subjects import PREFIX, SCENARIO_NAME, Subjects

CLIENT = "client"
"""The user of direct clients: sends requests, hears inboxes, nothing else."""
OPERATOR = "operator"
"""The user of `baton drain` and its like: speaks to control subjects and to the leading monitor, nothing else."""
CLIENT_INBOXES = "_INBOX.>"
"""Where client libraries listen by default; the services' own inboxes lie elsewhere. Those who share the one client
user can read each other's answers: clients who must not need users of their own, see `users`."""
LIMITS = """\
max_payload: 1MB
max_pending: 16MB
max_connections: 4096
write_deadline: "2s"
# A frozen client is dropped after about four seconds; slacker than the clients' own pings of the server.
ping_interval: "2s"
ping_max: 2
"""


@dataclass(frozen=True, slots=True)
class User:
    """One user of the server. `deny` closes what a wildcard of `publish` would open by accident."""

    name: str
    publish: list[str]
    subscribe: list[str]
    deny: list[str] = field(default_factory=list)
    deaf: list[str] = field(default_factory=list)  # closes what a wildcard of `subscribe` would open


def inbox(user: str) -> str:
    """Name the space where a service's own answers arrive; nobody else may read there."""
    return f"_INBOX_{user}.>"


def own_client(name: str) -> str:
    """Name the user of a client that shares its inboxes with nobody."""
    return f"{CLIENT}-{name}"


def own_inboxes(name: str) -> str:
    """Name the space where such a client hears its answers: its library's inbox prefix is `_INBOX.<name>`."""
    return f"_INBOX.{name}.>"


def password_variable(user: str) -> str:
    """Name the environment variable of nats-server that holds a user's password."""
    return f"BATON_NATS_PASSWORD_{user.upper().replace('-', '_')}"


def users(prefix: str = PREFIX, clients: Sequence[str] = ()) -> list[User]:
    """List every user with the least it needs. `*` stands for any scenario or any instance.

    Each of `clients` is a user of its own beside the shared one, and nobody else hears its inboxes.
    """
    s = Subjects(prefix)
    inner = [f"{prefix}._{space}" for space in ("frames.>", "control.>", "fleet.>", "presence.>", "pulse", "orders")]
    answers = [inbox(Role.MONITOR), inbox(OPERATOR)]  # to AssignRole and Drain
    heard = [s.control("*"), s.map("*"), s.pulse(), s.presence()]  # by every service

    def user(name: str, publish: list[str], subscribe: list[str]) -> User:
        # `baton.*.requests` would match `baton._control.requests`: what begins with `_` needs a line of its own.
        closed = [space for space in inner if not any(said.startswith(space.rstrip(">")) for said in publish)]
        return User(name, publish, subscribe, closed)

    replies = [CLIENT_INBOXES, *answers]
    asked = [s.requests("*"), s.requests_cancel("*")]
    statuses = s.status("*")  # `baton.*.status.*` covers `baton._fleet.status.*` too
    return [
        user(
            Role.GATEWAY,
            [
                s.prefill("*", "*"),
                s.cancel("*"),
                s.claim("*"),
                s.presence(),
                s.fleet_status(),
                s.traffic("*"),
                *replies,
            ],
            [s.requests("*"), s.requests_cancel("*"), s.frames("*"), statuses, *heard, inbox(Role.GATEWAY)],
        ),
        user(
            Role.PREFILL,
            [
                s.decode("*", "*"),
                s.kv_ready("*"),
                s.links("*"),
                s.frames("*"),
                statuses,
                inbox(Role.GATEWAY),
                *answers,
            ],
            [s.prefill("*", "*"), s.cancel("*"), s.claim("*"), statuses, *heard, inbox(Role.PREFILL)],
        ),
        user(
            Role.DECODE,
            [s.frames("*"), statuses, inbox(Role.PREFILL), inbox(Role.GATEWAY), *answers],
            # prefill: whole prompts that are offered to one decode
            [
                s.decode("*", "*"),
                s.prefill("*", "*"),
                s.cancel("*"),
                s.claim("*"),
                s.fleet_status(),
                *heard,
                inbox(Role.DECODE),
            ],
        ),
        user(
            Role.MONITOR,
            # orders: a monitor that does not lead passes on what its page is asked for
            [s.map("*"), s.pulse(), s.control("*"), s.fleet_status(), s.presence(), s.orders(), *answers],
            [statuses, s.kv_ready("*"), s.links("*"), s.traffic("*"), s.orders(), *heard, inbox(Role.MONITOR)],
        ),
        user(Role.STANDBY, [s.fleet_status(), *answers], [*heard, inbox(Role.STANDBY)]),
        user(OPERATOR, [s.control("*"), s.orders()], [inbox(OPERATOR)]),
        replace(user(CLIENT, asked, [CLIENT_INBOXES]), deaf=[own_inboxes(name) for name in clients]),
        *(user(own_client(name), asked, [own_inboxes(name)]) for name in clients),
    ]


def render(
    prefix: str = PREFIX,
    clients: Sequence[str] = (),
    *,
    listen: str = "0.0.0.0:4222",
    http: str | None = "127.0.0.1:8222",
) -> str:
    """Write the text of a nats.conf. The monitoring port has no authentication and so stays on loopback."""
    lines = [
        "# Made by `python -m services.local.permissions`; change services/local/permissions.py instead.",
        "# Passwords come from the environment of nats-server: letters and digits that begin with a letter.",
        f"listen: {_quoted(listen)}",
        *([f"http: {_quoted(http)}"] if http else []),
        LIMITS.rstrip(),
        "authorization {",
        "  timeout: 2",
        "  users = [",
        *(line for user in users(prefix, clients) for line in _user_lines(user)),
        "  ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _user_lines(user: User) -> list[str]:
    deaf = f", deny: {_listed(user.deaf)}" if user.deaf else ""
    return [
        "    {",
        f"      user: {_quoted(user.name)}, password: ${password_variable(user.name)}",
        "      permissions: {",
        f"        publish: {{ allow: {_listed(user.publish)}, deny: {_listed(user.deny)} }}",
        f"        subscribe: {{ allow: {_listed(user.subscribe)}{deaf} }}",
        "      }",
        "    }",
    ]


def _quoted(text: str) -> str:
    return f'"{text}"'


def _listed(subjects: list[str]) -> str:
    return "[" + ", ".join(_quoted(subject) for subject in subjects) + "]"


def _checked(names: list[str]) -> list[str]:
    wrong = [name for name in names if not SCENARIO_NAME.match(name)]
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: a client's name has lower-case letters, digits and inner hyphens")
    return names


if __name__ == "__main__":
    sys.stdout.write(render(clients=_checked(sys.argv[1:])))
