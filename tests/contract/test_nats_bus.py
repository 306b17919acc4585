"""What only the real bus can show: sign-in, a server that dies, freezes or refuses, and the library's behaviour."""

import asyncio
import dataclasses
import signal

import pytest

from shared.bus import Delivery
from shared.config import Credentials, Nats
from shared.errors import DeadlineExceeded, LinkLost, Overloaded
from shared.messages import Done
from shared.nats_bus import NatsBus
from tests.servers import NatsServer, free_port
from tests.waiting import until


def impatient(settings: Nats) -> Nats:
    return dataclasses.replace(settings, connect_timeout_s=1.0)


async def test_opening_without_a_server_ends_with_a_clear_error() -> None:
    settings = Nats(url=f"nats://127.0.0.1:{free_port()}", connect_timeout_s=0.6)
    with pytest.raises(LinkLost, match=r"cannot connect to NATS within 0\.6 s: .*refused|111"):
        await NatsBus.open(settings, service="gateway")


async def test_opening_with_a_wrong_password_names_the_refusal_and_not_the_password(nats_server: NatsServer) -> None:
    settings = dataclasses.replace(impatient(nats_server.settings()), password="wrong-secret")
    with pytest.raises(LinkLost, match=r"(?i)authorization violation") as caught:
        await NatsBus.open(settings, service="gateway")
    assert "wrong-secret" not in str(caught.value)


async def test_opening_can_be_cancelled(own_nats_server: NatsServer) -> None:
    own_nats_server.signal(signal.SIGSTOP)  # the kernel accepts the connection, nobody greets
    opening = asyncio.ensure_future(NatsBus.open(own_nats_server.settings(), service="gateway"))
    await asyncio.sleep(0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    own_nats_server.signal(signal.SIGCONT)


async def test_a_role_signs_in_with_its_own_credentials(nats_server: NatsServer) -> None:
    settings = nats_server.settings()
    own = {"decode": Credentials(settings.user, settings.password)}
    shared = dataclasses.replace(impatient(settings), user="nobody", password="x", credentials=own)
    bus = await NatsBus.open(shared, service="decode")
    assert bus.connected
    await bus.close()
    with pytest.raises(LinkLost):
        await NatsBus.open(shared, service="prefill")


async def test_credentials_in_the_url_work(nats_server: NatsServer) -> None:
    url = f"nats://{nats_server.user}:{nats_server.password}@127.0.0.1:{nats_server.port}"
    bus = await NatsBus.open(Nats(url=url), service="gateway")
    assert bus.connected
    await bus.close()


async def test_what_was_flushed_is_known_to_the_server(nats_server: NatsServer) -> None:
    """The library's own flush is no barrier; see `shared.nats_bus`."""
    asker = await NatsBus.open(nats_server.settings(), service="gateway")
    worker = await NatsBus.open(nats_server.settings(), service="prefill")
    answers: list[asyncio.Task[None]] = []

    def answer(delivery: Delivery) -> None:
        answers.append(asyncio.ensure_future(worker.respond(delivery, Done("p"))))

    for number in range(100):
        subscription = await worker.subscribe(f"flushed.{number}", answer)
        await worker.flush(5)
        assert await asker.request(f"flushed.{number}", b"", Done, timeout_s=5) == Done("p")
        await subscription.stop()
    await asyncio.gather(*answers)
    await asker.close()
    await worker.close()


async def test_a_connection_closed_by_the_server_is_told_once(nats_server: NatsServer) -> None:
    told: list[str] = []
    bus = await NatsBus.open(nats_server.settings(), service="gateway", on_closed=told.append)
    await bus._nc.publish("x", bytes((1 << 20) - 8), headers={"a": "b" * 32})  # past our guard: the server hangs up
    await until(lambda: bool(told), "the closed connection is told")
    assert bus.closed
    assert not bus.connected
    assert len(told) == 1
    assert "closed for good" in told[0]
    with pytest.raises(LinkLost):
        await bus.publish("x", b"")
    await bus.close()


async def test_closing_on_purpose_is_told_to_nobody(nats_server: NatsServer) -> None:
    told: list[str] = []
    bus = await NatsBus.open(nats_server.settings(), service="gateway", on_closed=told.append)
    await bus.close()
    assert told == []


async def test_a_user_who_is_revoked_is_told_instead_of_trying_for_ever(own_nats_server: NatsServer) -> None:
    told: list[str] = []
    bus = await NatsBus.open(own_nats_server.settings(), service="gateway", on_closed=told.append)
    own_nats_server.kill()
    own_nats_server.change_password()
    own_nats_server.start()
    await until(lambda: bool(told), "the refusal is told", 30)
    assert len(told) == 1
    await bus.close()


async def test_a_frozen_server_is_noticed_and_nothing_piles_up_or_blocks(own_nats_server: NatsServer) -> None:
    settings = dataclasses.replace(own_nats_server.settings(), max_pending_bytes=4 << 20)
    bus = await NatsBus.open(settings, service="decode")
    own_nats_server.signal(signal.SIGSTOP)
    refused: type[Exception] | None = None
    async with asyncio.timeout(30):
        while refused is None:
            try:
                await bus.publish("frames", bytes(256 << 10))
            except (Overloaded, LinkLost) as error:
                refused = type(error)
            await asyncio.sleep(0)
        with pytest.raises((DeadlineExceeded, LinkLost, Overloaded)):
            await bus.request("nobody", b"", Done, timeout_s=0.2)
    await until(lambda: not bus.connected, "the frozen server is noticed")
    own_nats_server.signal(signal.SIGCONT)
    await until(lambda: bus.connected, "the link is back")
    await bus.publish("frames", b"again")
    await bus.close()
    assert bus.stats.refused > 0


async def test_a_denied_publish_is_heard_of_in_the_errors_and_closes_nothing(own_nats_server: NatsServer) -> None:
    own_nats_server.deny_publish("secret.>")
    bus = await NatsBus.open(own_nats_server.settings(), service="gateway")
    await bus.publish("secret.x", b"")
    await until(lambda: bus.stats.errors > 0, "the refusal is counted")
    await bus.publish("open.x", b"")
    await bus.flush(5)
    assert bus.connected
    await bus.close()


async def test_closing_at_the_moment_the_server_dies_leaves_nothing_behind(own_nats_server: NatsServer) -> None:
    """The leak check of every test is what decides."""
    bus = await NatsBus.open(own_nats_server.settings(), service="gateway")
    await bus.subscribe("x", lambda _delivery: None)
    await bus.publish("x", bytes(100_000))
    own_nats_server.kill()
    await bus.close()
    assert bus.closed


HEADS = {
    "a reply subject that is no text": b"PUB x.one _INBOX.\xff 2\r\nhi\r\n",
    "a subject that is no text": b"PUB x.\xff 2\r\nhi\r\n",
    "white space in a reply subject": b"PUB x.one _INBOX.a\x0bb 2\r\nhi\r\n",
    "a line's end in a reply subject": b"PUB x.one _INBOX.a\rb 2\r\nhi\r\n",
    "white space in a subject": b"PUB x.\x0c7 2\r\nhi\r\n",
    "headers that are none": b"HPUB x.one 4 6\r\nabcdhi\r\n",
    "a status that is no text": b"HPUB x.one 16 18\r\nNATS/1.0 \xff\xff\xff\r\n\r\nhi\r\n",
    "a description that is no text": b"HPUB x.one 20 22\r\nNATS/1.0 503 \xff\xff\xff\r\n\r\nhi\r\n",
    "a header that is no text": b"HPUB x.one 19 21\r\nNATS/1.0\r\na: \xff\xff\r\n\r\nhi\r\n",
}


@pytest.mark.parametrize("head", HEADS)
async def test_no_head_of_a_message_ends_the_link(nats_server: NatsServer, head: str) -> None:
    bus = await NatsBus.open(nats_server.settings(), service="gateway")
    seen: list[str] = []
    await bus.subscribe("x.*", lambda delivery: seen.append(delivery.subject))
    await bus.flush(5)
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
    await reader.readline()
    who = f'"user":"{nats_server.user}","pass":"{nats_server.password}"'
    writer.write(f'CONNECT {{"verbose":false,"headers":true,{who}}}\r\n'.encode())
    writer.write(HEADS[head] + b"PUB x.good 2\r\nok\r\nPING\r\n")
    assert await reader.readline() == b"PONG\r\n", "the server takes it"
    await until(lambda: "x.good" in seen, "the next message")
    assert bus.stats.reconnects == 0
    writer.close()
    await bus.close()
