"""Streams that stand still: a worker that is frozen, stuck or cut off says nothing, and nobody says it of it.

Owns the clocks. Whether a stream that stands still is moved is the dispatcher's decision; before that a worker is asked
what became of it, since a frame or an ending may be all that was lost.
"""

from collections.abc import Callable

from services.gateway.relay.record import ASK_S, Record
from services.gateway.relay.records import Records
from shared.bus import Bus
from shared.config import FleetSettings
from shared.policy.dispatch_events import Stalled


class Stalls:
    """Of one gateway's records."""

    def __init__(
        self,
        records: Records,
        settings: FleetSettings,
        *,
        first_token_s: Callable[[Record], float],
        tell: Callable[[Stalled], None],
        ask: Callable[[list[Record]], list[Record]],
        bus: Bus,
    ) -> None:
        self._records = records
        self._settings = settings
        self._first_token_s = first_token_s
        self._tell = tell
        self._ask = ask
        self._bus = bus
        self._reconnects = bus.stats.reconnects

    def sweep(self, elapsed_s: float) -> None:
        """Look for gaps that nothing fills and for streams that stand still. Called twice a second."""
        if not self._bus.connected:
            return  # nobody's silence means anything
        doubted = self._records.gapped
        self._records.sweep(elapsed_s)
        if self._reconnects != self._bus.stats.reconnects:
            self._reconnects = self._bus.stats.reconnects
            for record in self._records:
                record.ask_s = 0.0  # whatever was said meanwhile is lost
        for record in self._records:
            if record.expected != record.seen:
                record.seen, record.still_s, record.ask_s = record.expected, 0.0, ASK_S
                continue
            record.still_s += elapsed_s
            if not record.speaking:
                continue
            if record.still_s >= record.ask_s:
                record.ask_s = 2 * max(record.ask_s, ASK_S)
                doubted.append(record)
            if record.still_s > self._patience(record):
                record.still_s = 0.0  # what it may still bring counts until the next offer; asked again if that is none
                self._tell(Stalled(record.request_id, record.attempt))
        for record in self._ask(doubted) if doubted else ():
            record.ask_s = 0.0  # at the next sweep

    def _patience(self, record: Record) -> float:
        """How long an attempt may bring nothing: a prompt takes its time, a decode does not."""
        settings = self._settings
        if record.handed_off:
            return settings.progress_s
        if record.fresh:
            return max(settings.progress_s, self._first_token_s(record))
        return settings.progress_s + settings.push_timeout_s
