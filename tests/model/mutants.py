"""Gateways that lack one of the checks on which everything rests. Each must be found out."""

from collections.abc import Callable

from msgspec import structs

from services.gateway.relay.records import Records
from shared.messages import Epoch, Failed, Finished, Frame
from shared.policy.placement import FleetView
from tests.model.gateway import Gateway


def anybody(_instance: str, _epoch: Epoch) -> bool:
    """No fence: whoever speaks in an instance's name is believed."""
    return True


class Unfenced(Gateway):
    """Takes frames of any epoch."""

    def make_records(self, current: Callable[[str, Epoch], bool]) -> Records:
        return Records(self, anybody)


class ViewWithoutFence(FleetView):
    """Takes statuses, answers and hand-offs of any epoch too."""

    def current(self, instance: str, epoch: Epoch) -> bool:
        return True


class FencedNowhere(Gateway):
    """Has no notion of epochs at all."""

    view_kind = ViewWithoutFence


class AnyAttempt(Records):
    """Delivers what any attempt brings."""

    def _take_plain(self, frame: Frame) -> None:
        for record in self:
            frame = structs.replace(frame, attempts=[record.attempt for _ in frame.attempts])
        super()._take_plain(frame)


class OldAttemptsSpeak(Gateway):
    """Does not ask which attempt a token is of."""

    def make_records(self, current: Callable[[str, Epoch], bool]) -> Records:
        return AnyAttempt(self, current)


class AnyIndex(Records):
    """Delivers each token as the next one."""

    def _take_plain(self, frame: Frame) -> None:
        for record in self:
            frame = structs.replace(frame, indexes=[record.expected for _ in frame.indexes])
        super()._take_plain(frame)


class TokensComeTwice(Gateway):
    """Does not look at the index of a token."""

    def make_records(self, current: Callable[[str, Epoch], bool]) -> Records:
        return AnyIndex(self, current)


class AnyEnd(Records):
    """Believes an ending before it has all tokens."""

    def _end(self, ending: Finished | Failed) -> None:
        record = self._open.get(ending.stream)
        if isinstance(ending, Finished) and record is not None and record.attempt == ending.attempt:
            self.drop(record)
            record.sink.finish(ending.reason)
            self._listener.on_finished(record, ending)
        else:
            super()._end(ending)


class EndsEarly(Gateway):
    """Does not compare an ending's count of tokens with its own."""

    def make_records(self, current: Callable[[str, Epoch], bool]) -> Records:
        return AnyEnd(self, current)


class Patient(Gateway):
    """Has no progress deadline."""

    def stall(self) -> None:
        """Wait on."""


class Trusting(Gateway):
    """Has no timeout for offers."""

    def time_out(self, attempt: int) -> None:
        """Wait on."""
