"""`baton scale`, `upgrade`, `explain`: orders to the leading monitor, and the wait until it has carried them out.

Idempotent: the same order again changes nothing more.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from services.commands.access import Access
from services.commands.arguments import Misused
from shared.errors import BadRequest, Cancelled, DeadlineExceeded, NoCapacity, Unavailable
from shared.messages import ExplainOrder, Rejected, ScaleOrder, Told, UpgradeOrder
from shared.nats_bus import NatsBus
from shared.subjects import Subjects

ANSWER_S: Final = 5.0
LOOK_S: Final = 0.5
AWAY_S: Final = 30.0
"""For which no monitor may answer while an order is waited for: leaders change."""

_PASSED: Final = re.compile(r",? since \d+ of \d+ s")

Order = ScaleOrder | UpgradeOrder | ExplainOrder
Say = Callable[[str], None]


def give(access: Access, order: Order, *, wait_s: float | None, say: Say) -> str:
    """Give an order and return what the monitor said; with `wait_s`, wait until it is carried out.

    `say` hears of the progress. Raises BatonError when nobody leads, the order is refused, or the time is over.
    """
    logging.getLogger("shared").setLevel(logging.CRITICAL)  # the command's sentences say it
    return asyncio.run(_give(access, order, wait_s, say))


async def _give(access: Access, order: Order, wait_s: float | None, say: Say) -> str:
    bus = await NatsBus.open(access.nats, service=access.user)
    try:
        asker = _Asker(bus, Subjects(access.nats.prefix).orders())
        told = await asker.ask(order)
        if wait_s is None:
            return told.text
        say(told.text)
        return await _settled(asker, order, told, wait_s, say)
    finally:
        await bus.close()


class _Asker:
    def __init__(self, bus: NatsBus, subject: str) -> None:
        self._bus = bus
        self._subject = subject

    async def ask(self, order: Order) -> Told:
        """Ask whichever monitor leads. Raises NoCapacity when none does, BatonError when it refuses."""
        absent = "No monitor that leads answers; see whether one runs with `baton status`, and try again in a moment."
        try:
            answer: Told | Rejected = await self._bus.request(
                self._subject, order, Told | Rejected, timeout_s=ANSWER_S, what="answer"
            )
        except (NoCapacity, DeadlineExceeded):
            raise NoCapacity(absent) from None
        if isinstance(answer, Rejected):
            raise BadRequest(f"{answer.instance} refused: {answer.message}")
        return answer


async def _settled(asker: _Asker, order: Order, told: Told, wait_s: float, say: Say) -> str:
    """Ask until two answers in a row say that nothing is on its way."""
    give_up, heard, calm, last = time.monotonic() + wait_s, time.monotonic(), 0, told.text
    while calm < 2:  # noqa: PLR2004
        if time.monotonic() > give_up:
            raise DeadlineExceeded(
                f"{order.scenario} has not come there within {wait_s:.0f} s and goes on; see `baton explain"
                f" {order.scenario}` and `baton status`."
            )
        await asyncio.sleep(LOOK_S)
        try:
            now = await asker.ask(ExplainOrder(order.scenario))
        except Unavailable:
            if time.monotonic() - heard > AWAY_S:
                raise
            continue
        heard, calm = time.monotonic(), calm + 1 if now.settled else 0
        if not now.settled and (news := _first_line(now.text)) != last:
            last = news
            say(news)
        if now.revision != told.revision and isinstance(order, UpgradeOrder):
            raise Cancelled(f"The upgrade of {order.scenario} did not last: {_why(now.text)}")
    return f"{order.scenario} is as ordered"


def _why(text: str) -> str:
    """Find in an explanation why an upgrade went back."""
    told = [line.removeprefix("- upgrade: ") for line in text.splitlines() if line.startswith("- upgrade: ")]
    back = [line for line in told if " back" in line]
    return next(iter(back or told), _first_line(text))


def _first_line(text: str) -> str:
    """Take what is worth a line of its own: not that some seconds have passed."""
    return _PASSED.sub("", text.partition("\n")[0])


# ---- what the command line says --------------------------------------------------------------------------------------


def model_path(text: str, *, local: bool) -> str:
    """Make a model's path absolute; a name stays a name. Raises BadRequest for a path that is not there.

    An absolute path is looked for only where the cluster runs on this machine.
    """
    path = Path(text).expanduser()
    if not (text.startswith((".", "/", "~")) or path.exists() or len(path.parts) > 2):  # noqa: PLR2004  name, or owner/name
        return text
    if (local or not path.is_absolute()) and not path.exists():
        raise BadRequest(f"There is no model at {path.absolute()}; give a directory that workers can read, or a name.")
    return str(path.absolute())


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE; a value that is JSON is taken as such, any other as text. Raises Misused."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise Misused(f"{pair!r} is no option; write KEY=VALUE, like dtype=bfloat16.")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found


def upgrade_order(access: Access, scenario: str, model: str, pairs: Sequence[str], **rest: Any) -> UpgradeOrder:  # noqa: ANN401
    """Make the order. Raises Misused when it asks for nothing, or for two things at once."""
    wanted = options(pairs)
    if rest.get("back") and (model or wanted):
        raise Misused("--back goes to the revision before; give it without --model and --option.")
    if not rest.get("back") and not model and not wanted:
        raise Misused("Say what is to change: --model, --option, or --back.")
    return UpgradeOrder(scenario, model_path(model, local=access.local) if model else "", wanted, **rest)


def scale_order(scenario: str, **rest: Any) -> ScaleOrder:  # noqa: ANN401
    """Make the order. Raises Misused when it asks for nothing."""
    if not any(rest.get(name) for name in ("prefill", "decode", "groups")):
        raise Misused("Say what is to change: --prefill, --decode, or --groups.")
    if rest.get("groups") and rest.get("group"):
        raise Misused("--group names one group, --groups says how many there are; give one of them.")
    return ScaleOrder(scenario, **{name: value or _EMPTY[name] for name, value in rest.items()})


_EMPTY: Final[dict[str, Any]] = {"prefill": 0, "decode": 0, "groups": 0, "group": "", "dry_run": False}
