"""The lease as a model: two processes that want one name, one Redis, and a receiver of what the holders say.

Time passes in steps; the lease's ttl is two of them. As faults Redis executes a call late or its answer comes late or
never, it is flushed, or another takes its place; a process is frozen for any time, or ends and begins anew. The holders
run the real `Tenure`, the receiver the real `FleetView`, and Redis the transcription of the real scripts.
"""

from collections.abc import Iterator

from shared.messages import Epoch
from tests.model.explorer import Model, Move, Name, Violation
from tests.model.lease_script import Store, release, take
from tests.model.lease_world import FAULTS, NOBODY, TTL, Call, Clock, Holder, Receiver, Size, World, owner_of
from tests.model.machines import Machines


class LeaseModel(Model[World]):
    """See the module."""

    def __init__(
        self, size: Size | None = None, receiver: type[Receiver] = Receiver, clock: type[Clock] = Clock
    ) -> None:
        self.size = size or Size()
        self.receivers: Machines[Receiver] = Machines(Receiver.value)  # type: ignore[arg-type]
        self.clocks: Machines[Clock] = Machines(Clock.value)  # type: ignore[arg-type]
        self._clock = clock
        self._first = self.receivers.enter(receiver())

    def start(self) -> World:
        holders = (Holder(0, self._new_clock(0)), Holder(0, self._new_clock(0)))
        return World(0, Store(), 0, 0, 0, holders, frozenset(), self._first, NOBODY, NOBODY, self.size.faults)

    def done(self, state: World) -> bool:
        """Whether the time that is looked at is over: that it always comes to that is all that is claimed of ends."""
        return state.now == self.size.steps

    def _new_clock(self, now: int) -> int:
        number = self.clocks.enter(self._clock())
        return self.clocks.call(number, "awake", now)[1]

    # ---- what may happen

    def moves(self, state: World) -> Iterator[Move]:
        for move in self._all_moves(state):
            if not move.fault or (state.faults and move.name[0] in self.size.kinds):
                yield move

    def _all_moves(self, state: World) -> Iterator[Move]:
        if state.now < self.size.steps:
            yield Move(("time passes",))
            if self.size.pulses:
                yield Move(("time passes", "with a pulse"))
        for which, holder in enumerate(state.holders):
            yield from self._moves_of(which, holder)
            if holder.frozen_since is None and which in self.size.hurt:
                yield from self._faults_of(which, holder)
        if self.size.listens:
            yield from (Move(("hear", epoch)) for epoch in sorted(state.words))
        yield Move(("flush",), fault=True)
        yield Move(("fail over",), fault=True)

    def _moves_of(self, which: int, holder: Holder) -> Iterator[Move]:
        if holder.call is not None and holder.call.answer is None:
            yield Move(("execute", which))
        if holder.late is not None:
            yield Move(("execute late", which))
        if holder.frozen_since is not None:
            yield Move(("thaw", which))
        elif holder.call is None:
            yield Move(("confirm", which))
        else:
            yield Move(("give up", which))
            if holder.call.answer is not None:
                yield Move(("answer", which))

    def _faults_of(self, which: int, holder: Holder) -> Iterator[Move]:
        yield Move(("freeze", which), fault=True)
        if holder.call is None:
            yield Move(("ask", which), fault=True)  # and wait for long
        if holder.epoch != NOBODY:
            yield Move(("release", which), fault=True)
            yield Move(("begin anew", which), fault=True)

    # ---- what then happens

    def play(self, state: World, name: Name) -> World:
        kind, *rest = name
        state = state._replace(faults=state.faults - (kind in FAULTS))
        if kind == "time passes":
            return self._pass_time(state, pulse=bool(rest))
        if kind == "hear":
            return self._hear(state, rest[0])
        if kind in ("flush", "fail over"):
            return self._hurt_redis(state, kind)
        which = rest[0]
        if kind in ("execute", "execute late"):
            return self._execute(state, which, late=kind == "execute late")
        if kind == "confirm":
            state = self._put(state, which, self._change("ask", which, state.holders[which], state.now))
            state = self._execute(state, which, late=False)
            kind = "answer"
        elif kind == "release":
            state = state._replace(store=release(state.store, owner_of(which, state.holders[which]))[1])
        return self._put(state, which, self._change(kind, which, state.holders[which], state.now))

    def _hurt_redis(self, state: World, how: str) -> World:
        """Let it forget all, or let another process with a counter of some time ago take its place."""
        state = state._replace(moments=state.moments + 1)
        if how == "fail over":
            return state._replace(store=state.store._replace(lease=None, fence=0), run=state.run + 1)
        return state._replace(store=Store() if self.size.boot_survives else Store(boot=1, run=str(state.run)))

    def _put(self, state: World, which: int, holder: Holder) -> World:
        first, second = state.holders
        words = state.words | {holder.epoch} if holder.epoch != NOBODY else state.words
        return state._replace(holders=(holder, second) if which == 0 else (first, holder), words=words)

    def _change(self, kind: str, which: int, holder: Holder, now: int) -> Holder:
        call = holder.call
        late = call if call is not None and call.answer is None else holder.late
        changed = holder
        match kind:
            case "ask":
                awake = self.clocks.call(holder.tenure, "awake", now)[1]
                changed = holder._replace(tenure=awake, call=Call(owner_of(which, holder), holder.known_boot, now))
            case "answer":
                changed = self._answer(which, holder, now)
            case "give up":
                changed = holder._replace(call=None, late=late)
            case "freeze":
                changed = holder._replace(frozen_since=now)
            case "thaw":
                asleep = now - (holder.frozen_since or 0) > TTL
                changed = holder._replace(frozen_since=None, slept=holder.slept or asleep)
            case "begin anew" | "release":
                changed = Holder(holder.life + 1, self._new_clock(now), late=late)
        return changed

    def _pass_time(self, state: World, *, pulse: bool) -> World:
        now = state.now + 1
        store = state.store
        if store.lease is not None and state.expires_at <= now:
            store = store._replace(lease=None)
        holders = tuple(
            holder
            if holder.frozen_since is not None
            else holder._replace(tenure=self.clocks.call(holder.tenure, "awake", now, pulse)[1])
            for holder in state.holders
        )
        return state._replace(now=now, store=store, holders=holders)  # type: ignore[arg-type]  # still two

    def _execute(self, state: World, which: int, *, late: bool) -> World:
        holder = state.holders[which]
        call = holder.late if late else holder.call
        assert call is not None
        time = 10 + state.now + (state.moments if self.size.fine_clock else 0)
        answer, store = take(state.store, call.owner, call.known_boot, time=time, run=str(state.run))
        epoch = (answer.boot, answer.counter)
        if answer.created:
            if epoch <= state.highest:
                raise Violation(f"{answer.owner} is given {epoch} after {state.highest} was given")
            state = state._replace(highest=epoch)
            other = state.holders[1 - which]
            state = self._put(state, 1 - which, other._replace(replaced=other.epoch != NOBODY))
        if answer.owner == call.owner:
            state = state._replace(expires_at=state.now + TTL)
        replied = call._replace(answer=answer, replaced=holder.replaced)
        after = holder._replace(late=None) if late else holder._replace(call=replied)
        return self._put(state._replace(store=store), which, after)

    def _answer(self, which: int, holder: Holder, now: int) -> Holder:
        call = holder.call
        assert call is not None
        assert call.answer is not None
        owner, boot, counter, created = call.answer
        if owner != call.owner:
            if holder.epoch != NOBODY:  # another has taken over: this process ends
                return Holder(holder.life + 1, self._new_clock(now), late=holder.late)
            return holder._replace(call=None, known_boot=max(boot, holder.known_boot))
        broken, tenure = self.clocks.call(holder.tenure, "confirmed", now, (boot, counter), call.sent_at, created)
        if created and call.replaced and holder.slept and not broken:
            raise Violation(f"process {which} slept while another held its lease, and goes on with what it had begun")
        return holder._replace(
            call=None,
            tenure=tenure,
            epoch=(boot, counter),
            known_boot=max(boot, holder.known_boot),
            slept=holder.slept and not created,
            replaced=holder.replaced and not (created and call.replaced),
        )

    def _hear(self, state: World, epoch: Epoch) -> World:
        accepted, receiver = self.receivers.call(state.receiver, "hear", epoch)
        if accepted and epoch < state.accepted:
            raise Violation(f"{epoch} is accepted after {state.accepted}")
        after = epoch if accepted else state.accepted
        return state._replace(receiver=receiver, accepted=after)
