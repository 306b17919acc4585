"""Two nats-servers in a cluster: what is said at one is heard at the other, and whoever loses one goes on there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus import Delivery
from shared.config import Nats
from shared.errors import LinkLost, NoCapacity
from shared.messages import Done
from shared.nats_bus import NatsBus
from shared.tasks import Tasks
from tests.contract.bus.links import Heard
from tests.servers import HOST, NatsServer, free_port
from tests.waiting import until


class Clustered(NatsServer):
    """A nats-server that is one of several."""

    def __init__(self, folder: Path, name: str, password: str) -> None:
        folder.mkdir()
        self.routes_port = free_port()
        self.routes: list[int] = []
        self._name_in_cluster = name
        super().__init__(folder)
        self.password = password

    def _argv(self, port: int) -> list[str]:
        argv = super()._argv(port)
        routes = ", ".join(f'"nats://{HOST}:{one}"' for one in self.routes)
        cluster = f'name: baton, listen: "{HOST}:{self.routes_port}", routes: [{routes}]'
        text = self._config.read_text()
        self._config.write_text(f"server_name: {self._name_in_cluster}\n{text}cluster {{ {cluster} }}\n")
        return argv


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Clustered]]:
    servers = [Clustered(tmp_path / name, name, "p-of-both") for name in ("a", "b")]
    for server in servers:
        server.routes = [one.routes_port for one in servers if one is not server]
        server.start()
    yield servers
    for server in servers:
        server.kill()


def settings(servers: list[Clustered], *, signed: bool = False) -> Nats:
    """All servers in one url; `signed`: with what to sign in with in the first only."""
    who = [f"{servers[0].user}:{servers[0].password}@" if signed and server is servers[0] else "" for server in servers]
    url = ",".join(f"nats://{name}{HOST}:{server.port}" for name, server in zip(who, servers, strict=True))
    return Nats(url=url) if signed else Nats(url=url, user=servers[0].user, password=servers[0].password)


async def answered(asker: NatsBus) -> Done:
    """Ask until an answer comes; that somebody listens elsewhere takes a moment to be known."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await asker.request("there", b"?", Done, timeout_s=5)
            except (NoCapacity, LinkLost):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("signed", [False, True])
async def test_whoever_loses_its_server_goes_on_at_another(servers: list[Clustered], *, signed: bool) -> None:
    """Also at a server that no URL holds a password for."""
    first, second = servers
    here, tasks = Heard(), Tasks("a test")
    bus = await NatsBus.open(settings(servers, signed=signed), service="tests")
    # who is at one server for certain; it learns of the other from that server
    fixed = await NatsBus.open(first.settings(), service="tests")

    def answer(delivery: Delivery) -> None:
        _ = tasks.spawn(fixed.respond(delivery, Done("there")), name="answer")

    await fixed.subscribe("there", answer)
    await bus.subscribe("all", here)
    assert await answered(bus) == Done("there")
    at = bus._nc.connected_url
    assert at is not None
    lost = first if at.port == first.port else second
    lost.kill()
    await until(lambda: bus.stats.reconnects == 1 and bus.connected, "it is at the other server")
    await until(lambda: fixed.connected, "so is the other one")
    assert await answered(bus) == Done("there")
    await fixed.publish("all", b"heard")
    await here.count(1)
    assert here.data == [b"heard"]
    assert await tasks.close() == []
    await bus.close()
    await fixed.close()
