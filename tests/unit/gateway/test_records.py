"""Frames become text, in order, once, whatever order and from whomever they come."""

from dataclasses import dataclass, field

from services.gateway.relay.record import Record
from services.gateway.relay.records import GAP_S, Records
from shared.errors import Code
from shared.messages import (
    Epoch,
    Failed,
    Finish,
    Finished,
    Frame,
    HandedOff,
    Logprobs,
    Sampling,
    Stopping,
    TokenLogprob,
    pack_tokens,
    unpack_tokens,
)

NEW, OLD = (1, 7), (1, 6)


@dataclass
class Sink:
    """Writes down what it is shown."""

    shown: list[tuple[int, str]] = field(default_factory=list)
    logprobs: list[Logprobs | None] = field(default_factory=list)
    reason: Finish | None = None

    def text(self, index: int, text: str) -> None:
        self.shown.append((index, text))

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        self.shown.append((index, text))
        self.logprobs.append(logprobs)

    def finish(self, reason: Finish) -> None:
        self.reason = reason


@dataclass
class Heard:
    """Writes down what the listener is told."""

    said: list[tuple[object, ...]] = field(default_factory=list)

    def on_first_token(self, record: Record) -> None:
        self.said.append(("first", record.attempt))

    def on_handed_off(self, record: Record, instance: str) -> None:
        self.said.append(("handed off", instance))

    def on_finished(self, record: Record, finished: Finished) -> None:
        self.said.append(("finished", finished.reason))

    def on_failed(self, record: Record, attempt: int, code: Code, message: str, *, retryable: bool) -> None:
        self.said.append(("failed", attempt, code, retryable))


class House:
    """One record, its sink and its listener."""

    def __init__(self, streams: int = 1, **sampling: int) -> None:
        self.heard = Heard()
        self.records = Records(self.heard, lambda _instance, epoch: epoch >= NEW)
        self.sinks = [Sink() for _ in range(streams)]
        self.all = [
            Record(
                f"r{number}",
                pack_tokens([1, 2, 3]),
                Sampling(**sampling),
                Stopping(max_tokens=99),
                1_000,
                9_000,
                sink,
                sink.text,
                number,
            )
            for number, sink in enumerate(self.sinks)
        ]
        for record in self.all:
            self.records.add(record)
            record.begin(0, "gateway-1")
        self.sink, self.record = self.sinks[0], self.all[0]

    def frame(self, *entries: tuple[int, int, str], attempt: int = 0, epoch: Epoch = NEW, **more: object) -> None:
        """(stream, index, text) each; the token is index + 100."""
        streams, indexes, texts = [list(column) for column in zip(*entries, strict=True)] if entries else ([], [], [])
        ids = [100 + index for index in indexes]
        self.records.take(Frame("w1", epoch, streams, [attempt] * len(ids), indexes, ids, texts, **more))  # type: ignore[arg-type]


def finished(tokens: int, stream: int = 0, attempt: int = 0) -> Finished:
    return Finished(stream, attempt, Finish.LENGTH, tokens, 3)


def test_tokens_in_order_are_shown_and_recorded() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.frame((0, 1, ""))
    house.frame((0, 2, "bc"), ended=[finished(3)])
    assert house.sink.shown == [(0, "a"), (2, "bc")]
    assert house.record.ids == [100, 101, 102]
    assert house.heard.said == [("first", 0), ("finished", Finish.LENGTH)]
    assert house.sink.reason is Finish.LENGTH
    assert len(house.records) == 0


def test_several_tokens_of_one_stream_in_a_frame_become_one_text() -> None:
    house = House(streams=2)
    house.frame((0, 0, "a"), (1, 0, "x"), (0, 1, "b"), (0, 2, "c"))
    assert house.sinks[0].shown == [(2, "abc")]
    assert house.sinks[1].shown == [(0, "x")]


def test_a_token_that_was_delivered_is_not_delivered_again() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.frame((0, 0, "a"))
    house.frame((0, 1, "b"))
    assert house.sink.shown == [(0, "a"), (1, "b")]
    assert house.records.counts.stale_tokens == 1


def test_tokens_of_an_older_attempt_are_dropped_and_counted() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.record.begin(1, "gateway-1")
    house.frame((0, 1, "old"), attempt=0, ended=[finished(2, attempt=0)])
    house.frame((0, 1, "new"), attempt=1)
    assert house.sink.shown == [(0, "a"), (1, "new")]
    assert house.records.counts.stale_tokens == 1
    assert house.sink.reason is None


def test_frames_of_an_older_epoch_are_dropped_whole() -> None:
    house = House()
    house.frame((0, 0, "zombie"), epoch=OLD, ended=[finished(1)])
    assert house.sink.shown == []
    assert house.records.counts.stale_frames == 1


def test_tokens_of_a_closed_stream_disturb_nobody() -> None:
    house = House(streams=2)
    house.records.drop(house.all[0])
    house.frame((0, 0, "gone"), (1, 0, "here"), (77, 0, "never was"))
    assert house.sinks[0].shown == []
    assert house.sinks[1].shown == [(0, "here")]


def test_a_decode_that_overtakes_prefill_waits_for_the_first_token() -> None:
    house = House()
    house.frame((0, 1, "b"))
    house.frame((0, 2, "c"), ended=[finished(3)])
    assert house.sink.shown == []
    house.frame((0, 0, "a"))
    assert house.sink.shown == [(0, "a"), (1, "b"), (2, "c")]
    assert house.heard.said == [("first", 0), ("finished", Finish.LENGTH)]
    assert house.records.counts.tokens == 3


def test_a_gap_that_nothing_fills_fails_the_attempt_and_the_next_one_goes_on_from_it() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.frame((0, 2, "c"))
    house.records.sweep(GAP_S / 2)
    assert house.heard.said == [("first", 0)]
    house.frame((0, 3, "d"))
    house.records.sweep(GAP_S)
    assert house.heard.said[1:] == [("failed", 0, Code.WORKER_LOST, True)]
    request = house.record.begin(1, "gateway-1")
    assert unpack_tokens(request.tokens) == [1, 2, 3, 100]
    assert (request.prompt_tokens, request.generated, request.attempt) == (3, 1, 1)
    house.frame((0, 1, "b"), attempt=1)
    assert house.sink.shown == [(0, "a"), (1, "b")]


def test_a_begun_stream_is_replayed_without_the_deadline_of_its_first_token() -> None:
    house = House()
    assert house.record.begin(1, "gateway-1").deadline_ms == house.record.deadline_ms
    house.frame((0, 0, "a"), attempt=1)
    assert house.record.deadline_ms < house.record.expires_ms
    assert house.record.begin(2, "gateway-1").deadline_ms == house.record.expires_ms


def test_an_ending_without_its_last_tokens_is_no_ending() -> None:
    house = House(streams=2)
    house.frame((0, 0, "a"), ended=[finished(3)])
    for index in range(3):
        house.frame((1, index, "x"))
        house.records.sweep(GAP_S / 2)
    assert house.sink.reason is None
    assert ("failed", 0, Code.WORKER_LOST, True) in house.heard.said


def test_what_comes_too_early_is_bounded() -> None:
    house = House()
    for index in range(1, 2000):
        house.frame((0, index, "x"))
    assert house.heard.said == [("failed", 0, Code.WORKER_LOST, True)]
    assert len(house.record.early) == 0


def test_a_failed_attempt_silences_its_worker() -> None:
    house = House()
    house.frame((0, 0, "a"), ended=[Failed(0, 0, Code.OVERLOADED, "no blocks", retryable=True)])
    house.frame((0, 1, "late"), ended=[finished(2)])
    assert house.heard.said == [("first", 0), ("failed", 0, Code.OVERLOADED, True)]
    assert house.sink.shown == [(0, "a")]


def test_a_token_id_that_is_none_spoils_the_frame_alone() -> None:
    house = House()
    house.records.take(Frame("w1", NEW, [0], [0], [0], [-5], ["a"]))
    house.records.take(Frame("w1", NEW, [0], [0], [0], [2**40], ["a"]))
    assert house.records.counts.malformed == 2
    house.frame((0, 0, "a"))
    assert house.sink.shown == [(0, "a")]


def test_logprobs_go_with_their_token_also_when_it_came_early() -> None:
    house = House(logprobs=1)
    second = Logprobs(0, TokenLogprob(101, -0.5, "b", b"b"), [])
    first = Logprobs(0, TokenLogprob(100, -0.1, "a", b"a"), [])
    house.frame((0, 1, "b"), logprobs=[second])
    house.frame((0, 0, "a"), logprobs=[first])
    assert house.sink.shown == [(0, "a"), (1, "b")]
    assert house.sink.logprobs == [first, second]


def test_a_hand_off_to_one_that_was_replaced_meanwhile_ends_the_attempt() -> None:
    house = House()
    house.records.hand_off(HandedOff(0, "r0", 0, "d1", OLD))
    assert house.heard.said == [("failed", 0, Code.WORKER_LOST, True)]
    assert not house.record.speaking


def test_a_hand_off_counts_for_its_own_attempt_only() -> None:
    house = House()
    house.records.hand_off(HandedOff(0, "r0", 1, "d1", NEW))
    house.records.hand_off(HandedOff(0, "other", 0, "d1", NEW))
    assert house.heard.said == []
    house.records.hand_off(HandedOff(0, "r0", 0, "d1", NEW))
    assert house.heard.said == [("handed off", "d1")]
