"""The product with one of its safeguards taken out, to be run in place of a service.

Owns which line each mutation changes, as text, so that a line that moves on says so. What must then be noticed is
`test_mutants`' business. `MUTATION=no-checksum python -m tests.faults.mutants --config FILE` runs the service with it.
"""

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from services.decode.intake import Intake
from services.decode.service import Decode
from services.decode.streams import Streams
from services.gateway.relay.record import Record
from services.gateway.relay.records import Records
from services.gateway.relay.stalls import Stalls
from services.gateway.service import Gateway
from shared.kv import intake as kv_intake
from shared.kv.tickets import Tickets
from shared.lifecycle import Service, main
from shared.messages import Role
from shared.policy.placement import FleetView

VARIABLE: Final = "MUTATION"
SERVICES: Final[dict[Role, Callable[[], Service]]] = {Role.GATEWAY: Gateway, Role.DECODE: Decode}


@dataclass(frozen=True)
class Change:
    """Other text in one function; `new` may be anything that stands where `old` did."""

    owner: type | ModuleType
    function: str
    old: str
    new: str

    def made(self) -> Callable[..., Any]:
        """Compile the function as changed, in the module where it stands."""
        function = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise LookupError(f"{function.__qualname__} has {self.old!r} {source.count(self.old)} times, not once")
        body = ast.parse(source.replace(self.old, self.new))
        made: dict[str, Any] = {}
        exec(compile(body, f"<mutant of {function.__qualname__}>", "exec"), function.__globals__, made)  # noqa: S102
        changed: Callable[..., Any] = made[self.function]
        return changed


@dataclass(frozen=True)
class Mutation:
    """The changes that take one safeguard out of the service of a role."""

    role: Role
    changes: tuple[Change, ...]

    def apply(self) -> None:
        """Change this process for good."""
        for change in self.changes:
            setattr(change.owner, change.function, change.made())


_NO_ATTEMPTS: Final = (
    Change(Records, "_take_plain", "record is None or record.attempt != attempt", "record is None"),
    Change(Records, "_take_rich", "record is None or record.attempt != attempt", "record is None"),
    Change(Records, "_end", "record is None or record.attempt != ending.attempt", "record is None"),
)
_NO_FENCE: Final = Change(FleetView, "current", "known is None or epoch >= known", "True")
_NO_STALLS: Final = Change(Stalls, "sweep", "record.still_s > self._patience(record)", "False")
STUCK: Final = "stuck"
"""No safeguard: a fault that cannot be brought about from outside."""
MUTATIONS: Final = {
    "no-attempts": Mutation(Role.GATEWAY, _NO_ATTEMPTS),
    "no-fence": Mutation(Role.GATEWAY, (_NO_FENCE,)),
    "no-attempts-and-no-fence": Mutation(Role.GATEWAY, (*_NO_ATTEMPTS, _NO_FENCE)),
    "no-fence-at-decode": Mutation(
        Role.DECODE, (Change(Intake, "_problem", "self._standing.peers.outdated(offer.prefill, offer.epoch)", "False"),)
    ),
    "no-fence-for-maps": Mutation(
        Role.GATEWAY,
        (
            Change(
                FleetView,
                "_see_map",
                "(message.epoch, message.version) <= self._maps.get(message.scenario, ((-1, -1), -1))",
                "False",
            ),
        ),
    ),
    "no-deduplication": Mutation(
        Role.GATEWAY,
        (Change(Records, "_take_plain", "elif record.expected != index:", "elif record.expected < index:"),),
    ),
    "no-checksum": Mutation(
        Role.DECODE,
        (
            Change(
                kv_intake.Intake,
                "_transfer",
                "not hmac.compare_digest(digest, link.take(CHECKSUM_BYTES))",
                "not link.take(CHECKSUM_BYTES)",
            ),
        ),
    ),
    "no-progress-deadline": Mutation(Role.GATEWAY, (_NO_STALLS,)),
    "no-judgement-of-silence": Mutation(
        Role.GATEWAY,
        (
            _NO_STALLS,
            Change(FleetView, "_bury", "self._lose(worker, reason, died=died)", "return"),
        ),
    ),
    "tickets-for-ever": Mutation(
        Role.DECODE,
        (Change(Tickets, "claim", "push.ticket, opening.ticket) and push.waiting", "push.ticket, opening.ticket)"),),
    ),
    STUCK: Mutation(
        Role.DECODE,
        (
            Change(
                Streams,
                "pump",
                'failpoint("decode.step")',
                "await asyncio.sleep(3600 if len(self._live) > 2 else 0)",
            ),
        ),
    ),
    "forgets-what-was-delivered": Mutation(
        Role.GATEWAY,
        (Change(Record, "begin", "self.close()", "self.close(); self.expected = 0; self.ids.clear()"),),
    ),
}


def run() -> int:
    """Be the mutant that the environment names."""
    mutation = MUTATIONS[os.environ[VARIABLE]]
    mutation.apply()
    return main(SERVICES[mutation.role])


if __name__ == "__main__":
    sys.exit(run())
