"""Every kind of bus, for the contract suite, and a subject of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.bus.links import Link, memory_link, nats_link
from tests.servers import NatsServer


@pytest.fixture(params=["memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def link(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    link = memory_link() if kind == "memory" else nats_link(request.getfixturevalue("nats_server"))
    yield link
    await link.close()


@pytest.fixture
async def fragile(kind: str, tmp_path: Path) -> AsyncIterator[Link]:
    """A link that may be cut."""
    if kind == "memory":
        link = memory_link()
        yield link
        await link.close()
        return
    server = NatsServer(tmp_path)
    server.start()
    link = nats_link(server)
    yield link
    await link.close()
    server.kill()


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    return f"contract.{abs(hash(request.node.nodeid))}"
