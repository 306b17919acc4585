"""The hurt line to NATS: whole messages are lost, doubled, late, repeated, and the connection never notices."""

from collections.abc import AsyncIterator

import pytest

from shared.config import Nats
from shared.messages import Done
from shared.nats_bus import NatsBus
from tests.faults.nats_wire import NatsWire, Reader, Rule
from tests.servers import NatsServer
from tests.waiting import until


@pytest.fixture
async def wire(nats_server: NatsServer) -> AsyncIterator[NatsWire]:
    async with NatsWire(nats_server.port, seed=3) as wire:
        yield wire


@pytest.fixture
async def ends(wire: NatsWire, nats_settings: Nats) -> AsyncIterator[tuple[NatsBus, NatsBus, str, list[bytes]]]:
    """A bus across the wire, one that is not, a subject, and what the second has heard there."""
    hurt = Nats(
        url=f"nats://127.0.0.1:{wire.port}",
        user=nats_settings.user,
        password=nats_settings.password,
        prefix=nats_settings.prefix,
    )
    speaker, hearer = await NatsBus.open(hurt, service="a"), await NatsBus.open(nats_settings, service="b")
    heard: list[bytes] = []
    subject = f"{nats_settings.prefix}.wire"
    await hearer.subscribe(subject, lambda delivery: heard.append(delivery.data))
    await hearer.flush(10)
    yield speaker, hearer, subject, heard
    await speaker.close()
    await hearer.close()


Ends = tuple[NatsBus, NatsBus, str, list[bytes]]


async def say(ends: Ends, count: int) -> None:
    speaker, hearer, subject, _ = ends
    for k in range(count):
        await speaker.publish(subject, b"%d" % k)
    await speaker.flush(10)
    await hearer.flush(10)


async def test_without_rules_everything_comes_in_order(ends: Ends) -> None:
    await say(ends, 100)
    assert ends[3] == [b"%d" % k for k in range(100)]


async def test_a_part_of_the_messages_is_lost_and_the_connection_lives(ends: Ends, wire: NatsWire) -> None:
    wire.rules.append(Rule(lambda subject: subject == ends[2], drop=0.2))
    await say(ends, 300)
    assert 20 < wire.dropped < 120
    assert len(ends[3]) == 300 - wire.dropped
    assert ends[0].stats.reconnects == ends[0].stats.errors == 0


async def test_every_message_comes_twice(ends: Ends, wire: NatsWire) -> None:
    wire.rules.append(Rule(twice=1))
    await say(ends, 50)
    assert ends[3] == [b"%d" % (k // 2) for k in range(100)]


async def test_late_messages_are_overtaken(ends: Ends, wire: NatsWire) -> None:
    wire.rules.append(Rule(late=0.3))
    await say(ends, 100)
    await until(lambda: len(ends[3]) == 100, "all have come")
    assert ends[3] != sorted(ends[3], key=int)
    assert sorted(ends[3], key=int) == [b"%d" % k for k in range(100)]


async def test_a_recorded_message_is_said_again(ends: Ends, wire: NatsWire) -> None:
    wire.record = lambda subject: subject == ends[2]
    await say(ends, 3)
    assert [one.frame.payload for one in wire.recorded] == [b"0", b"1", b"2"]
    wire.replay(wire.recorded[1])
    await until(lambda: ends[3] == [b"0", b"1", b"2", b"1"], "it comes again")


async def test_a_rule_for_what_comes_from_the_server_touches_that_alone(ends: Ends, wire: NatsWire) -> None:
    speaker, hearer, subject, heard = ends
    wire.rules.append(Rule(drop=1, up=False))
    answers: list[bytes] = []
    await speaker.subscribe(f"{subject}.back", lambda delivery: answers.append(delivery.data))
    await say(ends, 5)
    await hearer.publish(f"{subject}.back", Done("x"))
    await hearer.flush(10)
    await speaker.flush(10)
    assert (len(heard), answers, wire.dropped) == (5, [], 1)


def test_commands_are_cut_apart_wherever_the_bytes_are_cut() -> None:
    said = (
        b'CONNECT {"a":1}\r\nSUB x.* q 4\r\nPUB a.b 3\r\nP\r\n\r\nPUB a.b _INBOX.1 2\r\nhi\r\n'
        b"HPUB h.x _INBOX.2 12 14\r\nNATS/1.0\r\n\r\nok\r\nMSG m.y 7 0\r\n\r\n"
        b"HMSG m.z 7 re.ply 12 13\r\nNATS/1.0\r\n\r\n!\r\nPING\r\n"
    )
    wanted = [
        ("", "", b""),
        ("", "", b""),
        ("a.b", "", b"P\r\n"),
        ("a.b", "_INBOX.1", b"hi"),
        ("h.x", "_INBOX.2", b"ok"),
        ("m.y", "", b""),
        ("m.z", "re.ply", b"!"),
        ("", "", b""),
    ]
    for step in (1, 2, 3, 7, len(said)):
        reader = Reader()
        frames = [frame for k in range(0, len(said), step) for frame in reader.feed(said[k : k + step])]
        assert b"".join(frame.raw for frame in frames) == said
        assert [(frame.subject, frame.reply, frame.payload) for frame in frames] == wanted
