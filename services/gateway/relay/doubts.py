"""Asks what became of streams that have a gap or are silent: often only a message was lost, and a worker has it still.

Owns the questions, few at a time. What is told fills the record; where nobody has the stream its attempt is over.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from services.gateway.relay.record import Record
from services.gateway.relay.records import Records
from services.gateway.resume.claims import Claimant
from shared.errors import BatonError, Code
from shared.tasks import Tasks

AT_ONCE: Final = 128
"""Streams asked for in one message."""

log = logging.getLogger(__name__)


class Doubts:
    """One per gateway. `where` says who holds a request, as far as we know; `scenario_of` which it is of."""

    def __init__(
        self,
        records: Records,
        claimant: Claimant,
        tasks: Tasks,
        *,
        where: Callable[[str], str | None],
        scenario_of: Callable[[Record], str],
    ) -> None:
        self._records = records
        self._claimant = claimant
        self._tasks = tasks
        self._where = where
        self._scenario_of = scenario_of
        self._asking: set[str] = set()  # scenarios

    def ask(self, doubted: list[Record]) -> list[Record]:
        """Ask for these; those whose scenario's workers are being asked already are given back, for another time."""
        later: list[Record] = []
        by_scenario: defaultdict[str, dict[Record, str]] = defaultdict(dict)
        for record in doubted:
            holder = self._where(record.request_id)
            if holder is not None and record.speaking:
                by_scenario[self._scenario_of(record)][record] = holder
        for scenario, held in by_scenario.items():
            if scenario in self._asking:
                later += held
                continue
            self._asking.add(scenario)
            try:
                _ = self._tasks.spawn(self._look_at_all(scenario, list(held.items())), name=f"ask {scenario}")
            except BatonError as error:
                self._asking.discard(scenario)
                later += held
                log.debug("not asked", extra={"error": str(error)})
        return later

    async def _look_at_all(self, scenario: str, held: list[tuple[Record, str]]) -> None:
        try:
            for start in range(0, len(held), AT_ONCE):
                await self._look(scenario, dict(held[start : start + AT_ONCE]))
        finally:
            self._asking.discard(scenario)

    async def _look(self, scenario: str, held: dict[Record, str]) -> None:
        attempts = {record: record.attempt for record in held}
        try:
            names = {record.request_id: holder for record, holder in held.items()}
            told, all_answered = await self._claimant.look(scenario, names)
        except BatonError as error:
            log.debug("no answer about silent streams", extra={"error": str(error)})
            return
        for record, attempt in attempts.items():
            if not self._records.holds(record) or record.attempt != attempt:
                continue
            claimed = told.get(record.request_id)
            if claimed is not None and claimed.request.attempt == attempt:
                self._records.fill(record, claimed)
            elif all_answered and record.still_s and self._where(record.request_id) == held[record]:
                self._records.fail(record, Code.WORKER_LOST, "no worker has the stream any more", retryable=True)
            await asyncio.sleep(0)
