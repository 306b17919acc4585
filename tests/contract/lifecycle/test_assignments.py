"""Orders to become something else: accepted once, refused with a reason, obeyed by leaving within their seconds."""

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.becoming import Becoming
from shared.config import Credentials, Nats
from shared.errors import Code
from shared.messages import AssignRole, Done, Drain, Health, Rejected, Revision, Role, State
from tests.contract.lifecycle.lives import Begin, Life
from tests.probe_service import Probe
from tests.waiting import until

ORDER = AssignRole(Role.PREFILL, "chat", "g1", seconds=1.5)
AWAY = AssignRole(Role.STANDBY, "_", "_", seconds=0.0)
ENVIRON = {"BATON_SCENARIO__CHAT__MODEL": "m", "BATON_SCENARIO__CHAT__ENGINE": "sim"}


class Transient(Probe):
    """A decode that may become something else."""

    def __init__(
        self, *, drain_s: float = 0.0, environ: Mapping[str, str] = ENVIRON, until: asyncio.Event | None = None
    ) -> None:
        super().__init__(drain_s=drain_s)
        self.until = until
        self.becoming = Becoming([], environ)

    async def drain(self, seconds: float) -> None:
        await super().drain(seconds)
        if self.until is not None:
            await self.until.wait()

    async def assign(self, order: AssignRole) -> None:
        assert self.instance is not None
        await self.becoming.accept(self.instance, order)


async def transient(begin: Begin, probe: Transient | None = None, **changes: object) -> tuple[Life, Becoming]:
    probe = probe or Transient()
    life = await begin(probe, **changes)
    await life.ready()
    return life, probe.becoming


async def test_an_accepted_order_ends_what_it_was_within_its_seconds(begin: Begin, redis_client: Redis) -> None:
    life, becoming = await transient(begin)
    assert await life.order(ORDER) == Done("decode-1")
    assert await life.ended() == 0
    assert (becoming.order, becoming.id, becoming.due) == (ORDER, "decode-1", True)
    assert life.probe.drained_with == [1.5]
    assert (await life.record(redis_client)).reason == "becomes prefill of chat"
    states = list(dict.fromkeys(status.state for status in life.heard))
    assert states[-2:] == [State.DRAINING, State.STOPPED]


async def test_a_repeated_order_is_accepted_again_and_another_one_finds_it_leaving(begin: Begin) -> None:
    life, becoming = await transient(begin, Transient(drain_s=60.0))
    same = AssignRole(Role.DECODE, "chat", "g1")
    order = AssignRole(Role.PREFILL, "chat", "g1", seconds=60.0)
    assert await asyncio.gather(life.order(order), life.order(order)) == [Done("decode-1")] * 2
    await until(lambda: life.state is State.DRAINING, "it drains")
    assert await life.order(order) == Done("decode-1")
    for other in (AWAY, same, AssignRole(Role.PREFILL, "chat", "g2", seconds=60.0)):
        answer = await life.order(other)
        assert isinstance(answer, Rejected)
        assert answer.code is Code.DRAINING
    assert becoming.order == order
    life.stopping.ask("enough", failed=True)


@pytest.mark.parametrize("how", ["drain", "signal"])
async def test_who_is_asked_to_end_while_it_leaves_for_another_role_ends_for_good(begin: Begin, how: str) -> None:
    released = asyncio.Event()
    life, becoming = await transient(begin, Transient(until=released))
    assert await life.order(AssignRole(Role.PREFILL, "chat", "g1", seconds=60.0)) == Done("decode-1")
    await until(lambda: life.state is State.DRAINING, "it drains")
    if how == "drain":
        assert await life.order(Drain(seconds=1.0)) == Done("decode-1")
        await until(lambda: not becoming.due, "the order is obeyed")
    else:
        life.stopping.signalled("SIGTERM")
    released.set()
    assert await life.ended() == 0
    assert (becoming.due, life.stopping.reason) == (False, {"drain": "drained by order"}.get(how, "received SIGTERM"))


async def test_asked_for_what_it_is_it_does_nothing(begin: Begin) -> None:
    life, becoming = await transient(begin)
    assert await life.order(AssignRole(Role.DECODE, "chat", "g1")) == Done("decode-1")
    assert (becoming.order, life.stopping.asked.is_set()) == (None, False)
    assert await life.order(AssignRole(Role.DECODE, "chat", "g1", Revision(1), seconds=0.0)) == Done("decode-1")
    assert becoming.order is not None  # the same place with another revision is something else


@pytest.mark.parametrize(
    ("order", "code", "why"),
    [
        (AssignRole(Role.MONITOR, "chat", "g1"), Code.BAD_REQUEST, "cannot become a monitor"),
        (AssignRole(Role.PREFILL, "code", "g1"), Code.UNKNOWN_SCENARIO, "is configured for chat, not for 'code'"),
        (AssignRole(Role.PREFILL, "chat", "g1", seconds=-1.0), Code.BAD_REQUEST, "give 0 to 3600"),
        (AssignRole(Role.PREFILL, "chat", "g1", seconds=float("nan")), Code.BAD_REQUEST, "give 0 to 3600"),
        (AssignRole(Role.PREFILL, "chat", "no group"), Code.BAD_REQUEST, "instance.group"),
        (
            AssignRole(Role.PREFILL, "chat", "g1", Revision(1, options={"max_num_sqs": 2})),
            Code.BAD_REQUEST,
            "did you mean max_num_seqs?",
        ),
        (AssignRole(Role.PREFILL, "chat", "g1", Revision(1, options={"X": 2})), Code.BAD_REQUEST, "option 'X'"),
    ],
    ids=["role", "scenario", "negative", "nan", "group", "unknown option", "option's name"],
)
async def test_an_order_that_would_be_its_end_is_refused(begin: Begin, order: AssignRole, code: Code, why: str) -> None:
    life, becoming = await transient(begin)
    answer = await life.order(order)
    assert isinstance(answer, Rejected)
    assert (answer.code, why in answer.message) == (code, True), answer.message
    assert (becoming.order, life.state) == (None, State.READY)


async def test_a_model_that_is_not_there_or_has_no_such_option_is_refused(begin: Begin, tmp_path: Path) -> None:
    life, _ = await transient(begin, Transient(environ={**ENVIRON, "BATON_SCENARIO__CHAT__ENGINE": "torch"}))
    missing = Revision(1, model=str(tmp_path / "no-model"))
    for revision, why in ((missing, "no-model"), (Revision(1, options={"dtipe": 1}), "did you mean dtype?")):
        answer = await life.order(AssignRole(Role.PREFILL, "chat", "g1", revision))
        assert isinstance(answer, Rejected)
        assert why in answer.message


async def test_a_role_whose_credentials_it_lacks_is_refused(begin: Begin, nats_settings: Nats) -> None:
    held = {"decode": Credentials(nats_settings.user, nats_settings.password)}
    life, _ = await transient(begin, nats=dataclasses.replace(nats_settings, credentials=held))
    answer = await life.order(ORDER)
    assert isinstance(answer, Rejected)
    assert answer.message == "decode-1 cannot sign in to NATS as a prefill; give it nats.credentials.prefill"


async def test_failed_health_is_told_at_once_and_takes_the_free_slots_away(begin: Begin, redis_client: Redis) -> None:
    life, _ = await transient(begin)
    instance = life.probe.instance
    assert instance is not None
    await instance.feel(Health.DEGRADED, "warm")
    await until(lambda: life.heard[-1].health is Health.DEGRADED, "it is told")
    assert (life.heard[-1].free, instance.why_not_ready()) == (3, "")
    await instance.feel(Health.FAILED, "a bad row")
    await until(lambda: life.heard[-1].health is Health.FAILED, "it is told")
    assert (life.heard[-1].free, life.heard[-1].state) == (0, State.READY)
    assert await life.get("/readyz") == (503, "its device has failed: a bad row\n")
    async with asyncio.timeout(10):
        while (await life.record(redis_client)).health is not Health.FAILED:  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.01)
    assert (await life.record(redis_client)).reason == "a bad row"
    await instance.feel(Health.OK)
    assert await life.get("/readyz") == (200, "ready\n")
