"""Slots at prefill, room at decode: claims one by one, then both against a count that trusts nobody."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.errors import Code
from shared.policy.admission import Admitted, DecodeAdmission, PrefillAdmission, Refused


def prefill(slots: int = 2, staging: int = 100) -> PrefillAdmission:
    return PrefillAdmission(slots, staging)


def ask(
    admission: PrefillAdmission, name: str, attempt: int = 0, kv_bytes: int = 10, deadline: float = 9.0
) -> Admitted | Refused:
    return admission.offer(name, attempt, kv_bytes=kv_bytes, deadline=deadline, now=1.0)


def code(verdict: Admitted | Refused) -> Code | None:
    return verdict.code if isinstance(verdict, Refused) else None


# ---- prefill


def test_prefill_accepts_below_its_slots_and_rejects_at_them() -> None:
    admission = prefill(slots=2)
    assert [code(ask(admission, name)) for name in "abc"] == [None, None, Code.OVERLOADED]
    assert admission.free == 0


def test_a_slot_is_held_until_its_kv_has_left_and_freed_once() -> None:
    admission = prefill(slots=1)
    ask(admission, "a")
    assert admission.left("a", 0)
    assert not admission.left("a", 0)
    assert admission.free == 1
    assert ask(admission, "b") == Admitted()


def test_a_repeated_offer_is_answered_as_before_and_takes_no_second_slot() -> None:
    admission = prefill()
    ask(admission, "a")
    assert ask(admission, "a") == Admitted(repeated=True)
    assert admission.used == 1


def test_a_repeated_offer_of_what_has_left_is_stale() -> None:
    admission = prefill()
    ask(admission, "a")
    admission.left("a", 0)
    assert code(ask(admission, "a")) is Code.STALE
    assert ask(admission, "a", 1) == Admitted()


def test_an_older_attempt_is_stale_and_a_newer_one_supersedes() -> None:
    admission = prefill()
    ask(admission, "a", 3)
    assert code(ask(admission, "a", 2)) is Code.STALE
    assert ask(admission, "a", 4) == Admitted(supersedes=(3,))
    assert admission.used == 2  # the older one holds its slot until it has stopped
    admission.left("a", 3)
    assert admission.used == 1


def test_a_cancel_names_what_is_held_and_keeps_out_what_comes_late() -> None:
    admission = prefill()
    ask(admission, "a", 1)
    assert admission.cancel("a", 1) == [("a", 1)]
    assert code(ask(admission, "a", 1)) is Code.STALE
    assert admission.cancel("b", 0) == []
    assert code(ask(admission, "b", 0)) is Code.STALE
    assert ask(admission, "b", 1) == Admitted()


def test_staging_is_reserved_with_the_slot() -> None:
    admission = prefill(slots=9, staging=100)
    assert ask(admission, "a", kv_bytes=60) == Admitted()
    assert code(ask(admission, "b", kv_bytes=60)) is Code.OVERLOADED
    admission.left("a", 0)
    assert ask(admission, "b", kv_bytes=60) == Admitted()


@pytest.mark.parametrize(
    ("kv_bytes", "deadline", "expected"),
    [(101, 9.0, Code.CONTEXT_TOO_LONG), (10, 1.0, Code.DEADLINE)],
)
def test_what_no_waiting_helps_is_refused_for_good(kv_bytes: int, deadline: float, expected: Code) -> None:
    verdict = ask(prefill(), "a", kv_bytes=kv_bytes, deadline=deadline)
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.retryable) == (expected, False)


def test_a_draining_prefill_takes_nothing_new_but_answers_repeats() -> None:
    admission = prefill()
    ask(admission, "a")
    admission.drain()
    assert code(ask(admission, "b")) is Code.DRAINING
    assert ask(admission, "a") == Admitted(repeated=True)
    assert admission.free == 0


def test_what_is_over_is_remembered_for_a_bounded_number_of_requests() -> None:
    admission = prefill()
    for number in range(40_000):
        admission.cancel(f"r{number}", 0)
    assert len(admission._known._over) < 20_000


# ---- decode


def decode(blocks: int = 10, staging: int = 100, sequences: int = 1, waiting: int = 1) -> DecodeAdmission:
    return DecodeAdmission(blocks, staging, sequences, waiting)


def offer(admission: DecodeAdmission, name: str, blocks: int = 2, kv_bytes: int = 10, free: int = 10) -> Code | None:
    return code(admission.offer(name, 0, blocks=blocks, kv_bytes=kv_bytes, deadline=9.0, free_blocks=free, now=1.0))


def test_decode_grants_its_sequences_and_a_small_wait() -> None:
    admission = decode(sequences=2, waiting=1)
    assert [offer(admission, name) for name in "abcd"] == [None, None, None, Code.OVERLOADED]


def test_a_received_kv_enters_the_batch_when_a_place_is_free_and_in_order() -> None:
    admission = decode(sequences=1, waiting=2)
    for name in "abc":
        offer(admission, name)
    assert admission.received("b", 0) == [("b", 0)]
    assert admission.received("c", 0) == []
    assert admission.received("a", 0) == []
    assert admission.ended("b", 0) == [("c", 0)]
    assert admission.ended("c", 0) == [("a", 0)]
    assert admission.ended("a", 0) == []
    assert admission.used == 0


def test_blocks_that_are_granted_are_not_granted_again_until_the_engine_counts_them() -> None:
    admission = decode(sequences=9)
    assert offer(admission, "a", blocks=6) is None
    assert offer(admission, "b", blocks=6) is Code.OVERLOADED
    admission.received("a", 0)
    admission.inserted("a", 0)
    assert admission.granted_blocks == 0
    assert offer(admission, "b", blocks=6, free=4) is Code.OVERLOADED
    assert offer(admission, "b", blocks=4, free=4) is None


def test_staging_is_free_again_once_the_kv_is_inserted() -> None:
    admission = decode(sequences=9, staging=15)
    assert offer(admission, "a") is None
    assert offer(admission, "b") is Code.OVERLOADED
    admission.inserted("a", 0)
    assert offer(admission, "b") is None


def test_what_is_larger_than_the_whole_worker_is_refused_for_good() -> None:
    verdict = decode(blocks=4).offer("a", 0, blocks=5, kv_bytes=1, deadline=9.0, free_blocks=4, now=1.0)
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.retryable) == (Code.CONTEXT_TOO_LONG, False)


def test_an_attempt_that_ends_while_it_waits_leaves_the_line() -> None:
    admission = decode(sequences=1, waiting=2)
    for name in "abc":
        offer(admission, name)
        admission.received(name, 0)
    assert admission.ended("b", 0) == []
    assert admission.ended("b", 0) == []
    assert admission.ended("a", 0) == [("c", 0)]


def test_a_draining_decode_refuses_and_still_admits_what_it_granted() -> None:
    admission = decode()
    offer(admission, "a")
    admission.drain()
    assert offer(admission, "b") is Code.DRAINING
    assert admission.received("a", 0) == [("a", 0)]


# ---- any order of events

NAMES = st.sampled_from(("a", "b", "c", "d"))
ATTEMPTS = st.integers(0, 2)


class AnyOrder(RuleBasedStateMachine):
    """Offers, repeats, cancels and ends in any order, at both workers, against plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.prefill = PrefillAdmission(2, 30)
        self.decode = DecodeAdmission(8, 30, 2, 1)
        self.slots: dict[tuple[str, int], int] = {}
        self.rooms: dict[tuple[str, int], list[int]] = {}
        self.running: set[tuple[str, int]] = set()
        self.computing: set[tuple[str, int]] = set()
        self.over: set[tuple[str, int]] = set()
        self.rooms_over: set[tuple[str, int]] = set()

    @rule(name=NAMES, attempt=ATTEMPTS, size=st.integers(1, 20))
    def offer_to_prefill(self, name: str, attempt: int, size: int) -> None:
        key = (name, attempt)
        verdict = self.prefill.offer(name, attempt, kv_bytes=size, deadline=2.0, now=1.0)
        if isinstance(verdict, Admitted) and not verdict.repeated:
            assert key not in self.over
            assert all(other[0] != name or other[1] < attempt for other in self.slots)
            assert set(verdict.supersedes) == {other[1] for other in self.slots if other[0] == name}
            self.slots[key] = size
        elif isinstance(verdict, Admitted):
            assert key in self.slots

    @rule(name=NAMES, attempt=ATTEMPTS)
    def kv_leaves(self, name: str, attempt: int) -> None:
        held = self.slots.pop((name, attempt), None) is not None
        assert self.prefill.left(name, attempt) == held
        if held:
            self.over.update((name, older) for older in range(attempt + 1))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def cancel(self, name: str, attempt: int) -> None:
        expected = sorted(key for key in self.slots if key[0] == name and key[1] <= attempt)
        assert self.prefill.cancel(name, attempt) == expected
        self.over.update((name, older) for older in range(attempt + 1))
        self.decode.cancel(name, attempt)
        self.rooms_over.update((name, older) for older in range(attempt + 1))

    @rule(name=NAMES, attempt=ATTEMPTS, blocks=st.integers(1, 5), local=st.booleans())
    def offer_to_decode(self, name: str, attempt: int, blocks: int, *, local: bool) -> None:
        verdict = self.decode.offer(
            name, attempt, blocks=blocks, kv_bytes=blocks, deadline=2.0, free_blocks=8, now=1.0, local=local
        )
        if isinstance(verdict, Admitted) and not verdict.repeated:
            assert (name, attempt) not in self.rooms_over
            self.rooms[name, attempt] = [blocks]
            if local:
                self.enter([(name, attempt)])
                self.computing.add((name, attempt))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def kv_arrives(self, name: str, attempt: int) -> None:
        self.enter(self.decode.received(name, attempt))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def enters_the_engine(self, name: str, attempt: int) -> None:
        self.decode.inserted(name, attempt)
        if (name, attempt) in self.rooms:
            self.rooms[name, attempt] = [0]
        self.computing.discard((name, attempt))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def ends(self, name: str, attempt: int) -> None:
        if self.rooms.pop((name, attempt), None) is not None:
            self.rooms_over.add((name, attempt))
        self.running.discard((name, attempt))
        self.computing.discard((name, attempt))
        self.enter(self.decode.ended(name, attempt))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def is_refused_after_all(self, name: str, attempt: int) -> None:
        key = (name, attempt)
        self.rooms.pop(key, None)
        self.running.discard(key)
        self.computing.discard(key)
        self.enter(self.decode.ended(name, attempt, began=False))

    def enter(self, keys: list[tuple[str, int]]) -> None:
        for key in keys:
            assert key in self.rooms, "only what is held is called"
            assert key not in self.running, "once"
            self.running.add(key)

    @invariant()
    def counts_agree_and_bounds_hold(self) -> None:
        assert self.prefill.used == len(self.slots) <= 2
        assert self.prefill._staged == sum(self.slots.values()) <= 30
        assert self.decode.used == len(self.rooms) <= 3
        assert self.decode.granted_blocks == sum(blocks for [blocks] in self.rooms.values()) <= 8
        assert self.decode._staged == self.decode.granted_blocks
        assert len(self.running) <= 2
        assert self.decode.local == len(self.computing) <= 1

    def teardown(self) -> None:
        for key in list(self.slots):
            self.prefill.left(*key)
        for key in list(self.rooms):
            self.rooms.pop(key)
            self.running.discard(key)
            self.enter(self.decode.ended(*key))
        assert (self.prefill.free, self.prefill._staged) == (2, 0)
        assert (self.decode.free, self.decode.granted_blocks, self.decode._staged) == (2, 0, 0)
        assert not self.decode._line
        assert self.decode._called == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


# ---- prompts that a decode computes itself


def offer_local(admission: DecodeAdmission, name: str, blocks: int = 1, *, local: bool = True) -> Code | None:
    verdict = admission.offer(name, 0, blocks=blocks, kv_bytes=1, deadline=9.0, free_blocks=100, now=1.0, local=local)
    return code(verdict)


def test_a_quarter_of_the_sequences_may_be_prompts_and_one_at_least() -> None:
    for sequences, most in ((1, 1), (4, 1), (8, 2), (9, 2)):
        admission = DecodeAdmission(100, 100, sequences, waiting=0)
        taken = [offer_local(admission, f"r{number}") for number in range(most + 1)]
        assert taken == [None] * most + [Code.OVERLOADED]
        assert admission.local == most
        admission.inserted("r0", 0)
        assert admission.local == most - 1


def test_a_prompt_has_its_place_in_the_batch_from_the_start() -> None:
    admission = DecodeAdmission(100, 100, sequences=2, waiting=4)
    assert [offer_local(admission, "a"), offer_local(admission, "b", local=False)] == [None, None]
    assert admission.received("b", 0) == [("b", 0)]
    assert offer_local(admission, "c", local=False) is None
    assert admission.received("c", 0) == []
    assert offer_local(admission, "d") is Code.OVERLOADED
    assert admission.ended("a", 0) == [("c", 0)]
    assert admission.ended("b", 0) == []
    assert offer_local(admission, "d") is None
    assert (admission.local, admission.used) == (1, 2)


def test_its_blocks_are_held_until_it_is_in_the_batch() -> None:
    admission = DecodeAdmission(100, 100, sequences=8, waiting=0)
    offer_local(admission, "a", blocks=60)
    assert offer_local(admission, "b", blocks=60, local=False) is Code.OVERLOADED
    admission.inserted("a", 0)
    assert (admission.granted_blocks, admission.local) == (0, 0)
    assert offer_local(admission, "b", blocks=60, local=False) is None
    for name in "ab":
        admission.ended(name, 0)
    assert (admission.used, admission.local, admission.granted_blocks) == (0, 0, 0)


def test_an_attempt_that_was_refused_after_all_may_come_again_unless_it_was_cancelled() -> None:
    admission = DecodeAdmission(100, 100, sequences=2, waiting=0)
    offer_local(admission, "a")
    admission.ended("a", 0, began=False)
    assert (admission.used, admission.local) == (0, 0)
    assert offer_local(admission, "a") is None
    admission.cancel("a", 0)
    admission.ended("a", 0, began=False)
    assert offer_local(admission, "a") is Code.STALE
