"""The token path: frames in, text out to each stream.

Owns every open stream of this gateway by number, and the order of its tokens. Decides nothing about workers: a gap, an
ending or a first token is told to the listener. No await, span or metric is made per token.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import structs

from services.gateway.relay.record import Record
from shared.errors import Code
from shared.messages import Claimed, Epoch, Failed, Finished, Frame, HandedOff, Logprobs, unpack_tokens

MAX_EARLY: Final = 1024
"""Tokens of one stream that may come before an earlier one: prefill's and decode's messages are not ordered."""
GAP_S: Final = 2.0
"""How long a missing token is waited for: longer than one message can overtake another, or be asked for again."""


class Listener(Protocol):
    """Who acts on what the frames say."""

    def on_first_token(self, record: Record) -> None:
        """Note that the attempt has brought its first token."""
        ...

    def on_handed_off(self, record: Record, instance: str) -> None:
        """Note that a decode worker owns the attempt."""
        ...

    def on_finished(self, record: Record, finished: Finished) -> None:
        """Note that the record is complete; it is no longer open."""
        ...

    def on_failed(self, record: Record, attempt: int, code: Code, message: str, *, retryable: bool) -> None:
        """Note that the attempt is over; nobody may speak to the record until another begins."""
        ...


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    frames: int = 0
    tokens: int = 0
    stale_tokens: int = 0  # of older attempts, of closed streams, or seen before
    stale_frames: int = 0  # of an instance's older epoch
    malformed: int = 0
    gaps: int = 0
    fetched: int = 0  # tokens that were lost on the way, and asked for


class Records:
    """All open streams of this gateway."""

    def __init__(self, listener: Listener, current: Callable[[str, Epoch], bool]) -> None:
        self.counts = Counts()
        self._listener = listener
        self._current = current  # whether an instance's epoch is not older than the newest known
        self._open: dict[int, Record] = {}
        self._gapped: set[Record] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._open.values()))

    def add(self, record: Record) -> None:
        """Open a stream."""
        self._open[record.stream] = record

    def holds(self, record: Record) -> bool:
        """Whether a stream is open."""
        return record.stream in self._open

    def drop(self, record: Record) -> None:
        """Close a stream, in whatever state; what still comes for it is stale."""
        self._open.pop(record.stream, None)
        self._gapped.discard(record)
        record.close()

    def take(self, frame: Frame) -> None:
        """Deliver one worker's step."""
        counts = self.counts
        counts.frames += 1
        if not self._current(frame.instance, frame.epoch):
            counts.stale_frames += 1
            return
        try:
            array("I", frame.ids)
        except OverflowError:
            counts.malformed += 1
            return
        if frame.logprobs or len(set(frame.streams)) != len(frame.streams):
            self._take_rich(frame)
        else:
            self._take_plain(frame)
        if self._gapped:
            self._settle()
        for ending in frame.ended:
            self._end(ending)

    def _take_plain(self, frame: Frame) -> None:
        """One token a stream, no logprobs: the case that must cost nothing."""
        find = self._open.get
        stale = 0
        for stream, attempt, index, token, text in zip(
            frame.streams, frame.attempts, frame.indexes, frame.ids, frame.texts, strict=True
        ):
            record = find(stream)
            if record is None or record.attempt != attempt:
                stale += 1
            elif record.expected != index:
                stale += self._out_of_order(record, index, token, text, None)
            else:
                record.ids.append(token)
                record.expected = index + 1
                if record.fresh:
                    self._first(record)
                if text:
                    record.text(index, text)
        self.counts.stale_tokens += stale
        self.counts.tokens += len(frame.ids) - stale

    def _take_rich(self, frame: Frame) -> None:
        """Logprobs, or several tokens of a stream, whose texts become one."""
        logprobs = {one.entry: one for one in frame.logprobs}
        joined: dict[int, tuple[Record, int, list[str]]] = {}
        columns = zip(frame.streams, frame.attempts, frame.indexes, frame.ids, frame.texts, strict=True)
        for entry, (stream, attempt, index, token, text) in enumerate(columns):
            record = self._open.get(stream)
            if record is None or record.attempt != attempt:
                self.counts.stale_tokens += 1
                continue
            if record.expected != index:
                self.counts.stale_tokens += self._out_of_order(record, index, token, text, logprobs.get(entry))
                continue
            self._append(record, token)
            if record.sampling.logprobs is not None:
                record.sink.token(index, text, logprobs.get(entry))
            elif text and not record.joins:
                record.text(index, text)
            elif text:
                texts = joined[stream][2] if stream in joined else []
                texts.append(text)
                joined[stream] = (record, index, texts)
        for record, index, texts in joined.values():
            record.text(index, "".join(texts))

    def _append(self, record: Record, token: int) -> None:
        self.counts.tokens += 1
        record.ids.append(token)
        record.expected += 1
        if record.fresh:
            self._first(record)

    def _first(self, record: Record) -> None:
        record.fresh = False
        self._listener.on_first_token(record)

    def _out_of_order(self, record: Record, index: int, token: int, text: str, logprobs: Logprobs | None) -> int:
        """Keep a token that came early; 1 when it is stale instead."""
        if index < record.expected or index in record.early:
            return 1
        if len(record.early) >= MAX_EARLY:
            self._gap(record)
            return 1
        record.early[index] = (token, text, logprobs)
        self._gapped.add(record)
        return 0

    def _settle(self) -> None:
        """Deliver what came early and is due now."""
        for record in list(self._gapped):
            while record.expected in record.early:
                index = record.expected
                token, text, logprobs = record.early.pop(index)
                self._append(record, token)
                self.counts.tokens -= 1  # counted when it came
                if record.sampling.logprobs is not None:
                    record.sink.token(index, text, logprobs)
                elif text:
                    record.text(index, text)
            ending = record.ending
            if record.early or (ending is not None and ending.completion_tokens > record.expected):
                continue
            record.ending, record.waited_s = None, 0.0
            self._gapped.discard(record)
            if ending is not None:
                self._end(ending)

    def _end(self, ending: Finished | Failed) -> None:
        record = self._open.get(ending.stream)
        if record is None or record.attempt != ending.attempt:
            return
        if isinstance(ending, Failed):
            self.fail(record, ending.code, ending.message, retryable=ending.retryable)
        elif ending.completion_tokens > record.expected:
            record.ending = ending
            self._gapped.add(record)
        else:
            self.drop(record)
            record.sink.finish(ending.reason)
            self._listener.on_finished(record, ending)

    def fail(self, record: Record, code: Code, message: str, *, retryable: bool) -> None:
        """Close the attempt that speaks now."""
        attempt = record.attempt
        record.close()
        self._gapped.discard(record)
        self._listener.on_failed(record, attempt, code, message, retryable=retryable)

    def hand_off(self, message: HandedOff) -> None:
        """Note who owns the attempt now."""
        record = self._open.get(message.stream)
        if record is None or record.attempt != message.attempt or record.request_id != message.request_id:
            return
        if self._current(message.decode, message.epoch):
            record.handed_off = True
            self._listener.on_handed_off(record, message.decode)
        else:  # whoever was there then is not any more
            self.fail(record, Code.WORKER_LOST, f"{message.decode} was replaced", retryable=True)

    def fill(self, record: Record, claimed: Claimed) -> None:
        """Take in what a worker tells of an attempt of which something is missing, or may be."""
        request = claimed.request
        if not self.holds(record) or record.attempt != request.attempt:
            return
        ids = unpack_tokens(request.tokens)[request.prompt_tokens :]
        first = len(ids) - len(claimed.texts)  # whatever is before that was ours to send
        logprobs = {one.entry: one for one in claimed.logprobs}
        for entry, text in enumerate(claimed.texts):
            index = first + entry
            if record.attempt == request.attempt and not self._out_of_order(
                record, index, ids[index], text, logprobs.get(entry)
            ):
                self.counts.tokens += 1
                self.counts.fetched += 1
                self._settle()
        if claimed.ended is not None:
            self._end(structs.replace(claimed.ended, stream=record.stream))

    @property
    def gapped(self) -> list[Record]:
        """Streams that miss a token, or the last ones of an ending that has come."""
        return list(self._gapped)

    def sweep(self, elapsed_s: float) -> None:
        """Give up gaps that nothing fills. Called a few times a second."""
        for record in list(self._gapped):
            record.waited_s += elapsed_s
            if record.waited_s > GAP_S:
                self._gap(record)

    def _gap(self, record: Record) -> None:
        self.counts.gaps += 1
        self.fail(record, Code.WORKER_LOST, f"token {record.expected} of the stream never came", retryable=True)
