"""Each user of the embedded NATS server may say and hear what its service needs, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from services.local import permissions, servers
from services.local.children import Child, stop
from services.local.servers import NatsAddress
from services.local.state import StateDirectory
from shared.config import Nats
from shared.errors import LinkLost
from shared.messages import Role
from shared.nats_bus import NatsBus
from shared.nats_client import RepairedClient
from shared.subjects import Subjects

REPOSITORY = Path(__file__).parents[2]
S = Subjects()
ANSWERABLE = [("monitor", "_INBOX_monitor.a.1"), ("operator", "_INBOX_operator.a.1")]
EVERY_SERVICE = [role.value for role in Role]

NEEDED = [
    ("client", S.requests("chat"), "gateway"),
    ("client", S.requests_cancel("chat"), "gateway"),
    ("gateway", "_INBOX.abc", "client"),
    ("gateway", "_INBOX.abc.def", "client"),
    ("gateway", S.prefill("chat", "p1"), "prefill"),
    ("gateway", S.cancel("chat"), "prefill"),
    ("gateway", S.cancel("chat"), "decode"),
    ("prefill", "_INBOX_gateway.a.1", "gateway"),
    ("decode", "_INBOX_gateway.a.1", "gateway"),  # the answer to a claim
    ("gateway", S.claim("chat"), "prefill"),
    ("gateway", S.claim("chat"), "decode"),
    ("gateway", S.presence("d1"), "decode"),
    ("prefill", S.decode("chat", "d1"), "decode"),
    ("prefill", S.kv_ready("chat"), "monitor"),
    ("prefill", S.links("chat", "p1"), "monitor"),
    ("gateway", S.traffic("chat", "g1"), "monitor"),
    ("operator", S.orders(), "monitor"),
    ("monitor", S.orders(), "monitor"),  # from the page of one that does not lead
    ("prefill", S.frames("g1"), "gateway"),
    ("decode", "_INBOX_prefill.a.1", "prefill"),
    ("decode", S.frames("g1"), "gateway"),
    *(
        (worker, S.status("chat", "w1"), hearer)
        for worker in ("prefill", "decode")
        for hearer in ("gateway", "monitor")
    ),
    ("decode", S.status("chat", "d1"), "prefill"),
    *((service, S.fleet_status("x1"), "monitor") for service in ("gateway", "standby", "monitor")),
    *(("monitor", S.control("x1"), service) for service in EVERY_SERVICE),
    *(("operator", S.control("x1"), service) for service in EVERY_SERVICE),
    *(("monitor", S.pulse(), service) for service in EVERY_SERVICE),
    *(("monitor", S.map("chat"), service) for service in EVERY_SERVICE),
    *((service, inbox, hearer) for service in EVERY_SERVICE for hearer, inbox in ANSWERABLE),
]
FORBIDDEN = [
    ("client", S.control("g1"), "gateway"),
    ("client", S.control("requests"), "gateway"),  # matches baton.*.requests
    ("client", S.frames("requests"), "gateway"),
    ("client", S.map("chat"), "gateway"),
    ("client", S.pulse(), "decode"),
    ("client", S.orders(), "monitor"),
    ("gateway", S.orders(), "monitor"),
    ("decode", S.orders(), "monitor"),
    ("gateway", S.links("chat", "p1"), "monitor"),
    ("prefill", S.traffic("chat", "g1"), "monitor"),
    ("client", S.prefill("chat", "p1"), "prefill"),
    ("client", S.cancel("chat"), "decode"),
    ("client", S.status("chat", "p1"), "gateway"),
    ("client", "_INBOX.abc", "client"),
    ("client", "_INBOX_gateway.a.1", "gateway"),
    ("gateway", S.control("p1"), "prefill"),
    ("gateway", S.control("cancel"), "prefill"),  # matches baton.*.cancel
    ("gateway", S.map("chat"), "prefill"),
    ("gateway", S.decode("chat", "d1"), "decode"),
    ("prefill", S.control("d1"), "decode"),
    ("prefill", S.map("chat"), "gateway"),
    ("prefill", S.cancel("chat"), "decode"),
    ("prefill", S.fleet_status("g1"), "monitor"),  # matches baton.*.status.*
    ("decode", S.map("chat"), "gateway"),
    ("decode", S.pulse(), "gateway"),
    ("decode", S.claim("chat"), "prefill"),
    ("client", S.claim("chat"), "decode"),
    ("client", S.presence("d1"), "decode"),
    ("decode", S.presence("g1"), "gateway"),
    ("standby", S.frames("g1"), "gateway"),
    ("standby", S.status("chat", "s1"), "gateway"),
    ("standby", S.control("d1"), "decode"),
    ("monitor", S.frames("g1"), "gateway"),
    ("monitor", S.prefill("chat", "p1"), "prefill"),
    ("operator", S.map("chat"), "gateway"),
    ("operator", S.requests("chat"), "gateway"),
]
DEAF = [
    *(("client", subject) for subject in (">", "*", "_INBOX_gateway.>", "_INBOX_monitor.a.*", "$SYS.>", "baton.>")),
    *(
        ("client", subject)
        for subject in (S.requests("chat"), S.frames("*"), S.control("*"), S.status("*"), S.map("*"))
    ),
    *((service, subject) for service in EVERY_SERVICE for subject in (">", "_INBOX.>", "$SYS.>", "baton.>")),
    *((service, f"_INBOX_{other}.>") for service in EVERY_SERVICE for other in EVERY_SERVICE if service != other),
    ("decode", S.frames("*")),
    ("decode", S.requests("*")),
    ("prefill", S.requests("*")),
    ("standby", S.status("*")),
    ("operator", S.status("*")),
]


class Users:
    """Connections as each user, with what the server said to them."""

    def __init__(self, address: NatsAddress, stack: AsyncExitStack) -> None:
        self.address = address
        self._stack = stack
        self.errors: list[str] = []
        self._clients: dict[str, RepairedClient] = {}

    async def connect(self, user: str) -> RepairedClient:
        if user in self._clients:
            return self._clients[user]

        async def on_error(error: Exception) -> None:
            self.errors.append(str(error))

        client = RepairedClient()  # whose flush is a barrier
        await client.connect(self.address.as_user(user), error_cb=on_error, allow_reconnect=False)
        self._stack.push_async_callback(client.close)
        self._clients[user] = client
        return client


@pytest.fixture
async def users(tmp_path: Path) -> AsyncIterator[Users]:
    with StateDirectory(tmp_path / "state") as state:
        server, address = servers.nats(state, "baton")
        child = Child(server.command)
        await server.answering()
        async with AsyncExitStack() as stack:
            yield Users(address, stack)
        await stop([child], 10)


async def _heard(users: Users, speaker: str, subject: str, hearer: str) -> int:
    """Publish as one user, listen as another; both have spoken with the server before we look."""
    listening, speaking = await users.connect(hearer), await users.connect(speaker)
    arrived: list[str] = []
    interest = await listening.listen(subject, lambda heard, *_: arrived.append(heard))
    await listening.flush()
    await speaking.publish(subject, b"x")
    await speaking.flush()
    await listening.flush()
    await interest.unsubscribe()
    return len(arrived)


async def test_whatever_a_service_needs_to_say_arrives(users: Users) -> None:
    for speaker, subject, hearer in NEEDED:
        assert await _heard(users, speaker, subject, hearer) == 1, (speaker, subject, hearer)
    assert users.errors == []


async def test_whatever_a_user_may_not_say_is_not_delivered_and_the_server_says_so(users: Users) -> None:
    for speaker, subject, hearer in FORBIDDEN:
        users.errors.clear()
        assert await _heard(users, speaker, subject, hearer) == 0, (speaker, subject, hearer)
        assert [
            error for error in users.errors if f'permissions violation for publish to "{subject}"' in error.lower()
        ] or [error for error in users.errors if "permissions violation for publish" in error.lower()], (
            speaker,
            subject,
            users.errors,
        )


async def test_a_client_with_a_user_of_its_own_shares_its_answers_with_nobody(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as state:
        server, address = servers.nats(state, "baton", ("acme", "beta-2"))
        child = Child(server.command)
        await server.answering()
        async with AsyncExitStack() as stack:
            users = Users(address, stack)
            heard: list[tuple[str, str]] = []
            listening = (
                ("client", "_INBOX.>"),  # allowed, but deaf for those of the others
                ("client-acme", "_INBOX.acme.>"),
                ("client-beta-2", "_INBOX.beta-2.>"),
            )
            for name, subject in listening:
                take = partial(lambda name, subject, *_: heard.append((name, subject)), name)
                await (await users.connect(name)).listen(subject, take)
            gateway = await users.connect("gateway")
            for name, _ in listening:
                await (await users.connect(name)).flush()
            assert users.errors == []
            for subject in ("_INBOX.acme.1", "_INBOX.beta-2.1", "_INBOX.x.1"):
                await gateway.publish(subject, b"x")
            await gateway.flush()
            for name, _ in listening:
                await (await users.connect(name)).flush()
            expected = {
                ("client", "_INBOX.x.1"),
                ("client-acme", "_INBOX.acme.1"),
                ("client-beta-2", "_INBOX.beta-2.1"),
            }
            assert (set(heard), len(heard)) == (expected, 3)
            assert await _heard(users, "client-acme", S.requests("chat"), "gateway") == 1
            for subject in ("_INBOX.>", "_INBOX.beta-2.>", "_INBOX.*.1", "_INBOX.x.1", ">"):
                users.errors.clear()
                await (await users.connect("client-acme")).subscribe(subject)
                await (await users.connect("client-acme")).flush()
                assert any("permissions violation" in error.lower() for error in users.errors), subject
        await stop([child], 10)


async def test_nobody_may_listen_to_everything_or_to_anothers_inboxes(users: Users) -> None:
    for user, subject in DEAF:
        users.errors.clear()
        client = await users.connect(user)
        await client.subscribe(subject)
        await client.flush()
        assert any("permissions violation for subscription" in error.lower() for error in users.errors), (user, subject)


@pytest.mark.parametrize(("user", "password"), [("", ""), ("gateway", "wrong"), ("nobody", "x")])
async def test_without_the_right_password_nobody_comes_in(users: Users, user: str, password: str) -> None:
    settings = Nats(url=users.address.url, user=user, password=password, connect_timeout_s=1.0)
    with pytest.raises(LinkLost, match=r"cannot connect to NATS.*Authorization Violation"):
        await NatsBus.open(settings, service="gateway")


async def test_one_services_password_does_not_open_anothers_user(users: Users) -> None:
    settings = Nats(
        url=users.address.url, user="monitor", password=users.address.passwords["gateway"], connect_timeout_s=1.0
    )
    with pytest.raises(LinkLost, match=r"cannot connect to NATS.*Authorization Violation"):
        await NatsBus.open(settings, service="monitor")


def test_the_checked_in_configuration_is_the_one_that_is_rendered() -> None:
    checked_in = (REPOSITORY / "deploy" / "nats" / "nats.conf").read_text(encoding="utf-8")
    assert checked_in == permissions.render(), "run: python -m services.local.permissions > deploy/nats/nats.conf"


def test_a_password_is_named_never_written() -> None:
    for line in permissions.render().splitlines():
        if "password:" in line:
            assert "password: $BATON_NATS_PASSWORD_" in line
