"""Engines with staging on their device, and a whole request between two of them over a real push."""

from typing import Any

from shared.config import KvSettings
from shared.engine import OnDevice, Sampled, Sequence
from shared.kv.arena import Arena, Range
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.wire import push_key
from shared.messages import KvGrant
from tests.engine_house import House, Worker
from tests.kv_ends import MIB, in_ms


class Side:
    """A worker with its arena, in which its engine has staging on the device."""

    def __init__(self, worker: Worker, arena: Arena) -> None:
        self.worker = worker
        self.arena = arena

    @classmethod
    async def open(cls, engines: House, nbytes: int = 4 * MIB, **options: Any) -> "Side":
        worker, arena = await engines.worker(**options), Arena(4 * MIB)
        assert isinstance(worker.engine, OnDevice)
        if nbytes:
            await worker.engine.stage_on_device(arena, nbytes)
        return cls(worker, arena)

    async def prompt(self, wanted: Sequence, *, grows: bool = False) -> tuple[Sampled, Range]:
        """Its first token, and the range with its KV; what host memory has of it is rubbish."""
        engine = self.worker.engine
        staging = self.arena.reserve(engine.info.kv_bytes(len(wanted.tokens)))
        staging.view[:] = b"\xa5" * staging.nbytes
        answer = await engine.prefill(wanted, staging.view, (lambda _: None) if grows else None)
        await engine.exported(wanted.key)
        await engine.release(wanted.key)
        return answer.first, staging


async def handed_over(prefill: Side, decode: Side, wanted: Sequence, **settings: Any) -> tuple[str, list[int]]:
    """A whole request over a real push; how the buffer went, and the tokens."""
    kv = KvSettings(**settings)
    receiver, sender = await Receiver.open(kv, decode.arena), Sender(prefill.arena, kv)
    try:
        first, staging = await prefill.prompt(wanted)
        push = receiver.expect(push_key(wanted.key, 0), staging.nbytes, in_ms(20_000))
        grant = KvGrant(wanted.key, 0, "d", (1, 1), push.ticket, receiver.endpoints, in_ms(20_000))
        way = await sender.push(staging, grant)
        staging.release()
        received = await push.received()
        ending = await decode.worker.decode(wanted, first, received.view)
        received.release()
        assert (prefill.arena.in_use, decode.arena.in_use) == (0, 0)
        assert not prefill.arena.on_device | decode.arena.on_device
        return way, [first.token_id, *ending.tokens]
    finally:
        await sender.close()
        await receiver.close()
