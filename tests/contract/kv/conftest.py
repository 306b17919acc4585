"""The ends of a hand-off, over each transport; each fixture checks what is left behind."""

from collections.abc import AsyncIterator

import pytest

from shared.config import KvSettings
from shared.kv.arena import Arena, Range
from shared.kv.sender import Sender
from tests.kv_ends import MIB, Ends, HandReceiver, HandSender, descriptors
from tests.waiting import until

LARGE = 64 * MIB
"""More than socket buffers take up, so that a receiver which does not read stops the sender."""


@pytest.fixture(params=["tcp", "shm"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ends(transport: str) -> AsyncIterator[Ends]:
    before = descriptors()
    ends = await Ends.open(transport, KvSettings(max_transfers=4, tcp_connections=1))
    yield ends
    await ends.close()
    assert descriptors() == before


@pytest.fixture
async def peer(ends: Ends) -> AsyncIterator[HandSender]:
    """A sender by hand; after what it did, an ordinary push must still arrive and no staging be held."""
    peer = await HandSender.connect(ends)
    yield peer
    peer.close()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    assert ends.receiver.expected == 0
    await ends.crosses()


@pytest.fixture
async def staging() -> AsyncIterator[Range]:
    before = descriptors()
    arena = Arena(LARGE)
    staging = arena.reserve(LARGE)
    yield staging
    staging.release()
    arena.close()
    assert descriptors() == before


@pytest.fixture
async def sender(staging: Range) -> AsyncIterator[Sender]:
    sender = Sender(staging.arena, KvSettings(max_transfers=2))
    yield sender
    await sender.close()
    assert not sender._moving


@pytest.fixture
async def liar(staging: Range, transport: str) -> AsyncIterator[HandReceiver]:
    """A receiver by hand."""
    liar = HandReceiver(transport)
    yield liar
    liar.hang_up()
