"""The connector in EngineCore: which buffers move, and when vLLM may free a prompt's blocks.

Pure, and without vLLM: it sees a request's id, prompt length, kv_transfer_params and the name of its status. Owns what
is under way per request; vLLM asks again and again (a request may be scheduled, preempted and scheduled once more), and
the answer must be acted on once. What goes wrong here ends EngineCore with everything in it, hence the narrow rules.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from shared.engine.vllm_engine.notes import Ended, FromVllm, Skipped, Transfer

COMPLETE = "FINISHED_LENGTH_CAPPED"
"""How a prompt of max_tokens 1 ends when all went well. Any other end keeps its KV to itself."""

log = logging.getLogger(__name__)


class Request(Protocol):
    """What is read of vLLM's Request."""

    request_id: str
    num_prompt_tokens: int
    kv_transfer_params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Move:
    """One buffer, from or to the blocks `ids`. Plain data, for it is pickled."""

    request: str  # vLLM's id: its reports are keyed by it
    transfer: str
    offset: int  # of the buffer in the arena
    blocks: int  # in the buffer
    skip: int  # of these at the front, which vLLM already has
    ids: tuple[int, ...]  # of vLLM's blocks, blocks - skip of them
    device: bool = False  # the buffer is in the ranks' device arenas


@dataclass(slots=True)
class Moves:
    """What the ranks are to start in one step."""

    loads: list[Move] = field(default_factory=list)
    sends: list[Move] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    """What is known of a request that has a transfer."""

    transfer: Transfer
    sends: bool
    decided: bool = False  # its load was started, or found to be needless
    loads: bool = False


class Scheduling:
    """In vLLM's order: `matched` any number of times, `allocated` once or twice, `finished` once; `take` every step."""

    def __init__(self, block_tokens: int, tell: Callable[[FromVllm], None]) -> None:
        self._block_tokens = block_tokens
        self._tell = tell
        self._held: dict[str, _Held] = {}
        self._moves = Moves()

    @property
    def requests(self) -> int:
        """With a transfer, and not finished."""
        return len(self._held)

    def matched(self, request: Request, computed: int) -> tuple[int, bool]:
        """How many tokens beyond the `computed` ones a buffer holds, and whether the load is asynchronous."""
        held = self._of(request)
        if held is None or held.sends or held.decided:
            return 0, False
        tokens = held.transfer.tokens - computed
        return (tokens, True) if tokens > 0 else (0, False)

    def allocated(self, request: Request, ids: Sequence[int], external: int) -> None:
        """Blocks `ids` are there for the whole request, `external` tokens of which are to be loaded."""
        held = self._of(request)
        if held is None or held.sends or held.decided:
            return
        held.decided = True
        transfer = held.transfer
        if external <= 0:
            self._tell(Skipped(transfer.transfer))
            return
        held.loads = True
        skip = (transfer.tokens - external) // self._block_tokens
        wanted = tuple(ids[skip : transfer.blocks])
        self._moves.loads.append(
            Move(
                request.request_id,
                transfer.transfer,
                transfer.offset,
                transfer.blocks,
                skip,
                wanted,
                transfer.device,
            )
        )

    def finished(self, request: Request, status: str, ids: Sequence[int]) -> bool:
        """Whether vLLM must keep the request's blocks until the ranks have reported it sent."""
        held = self._of(request)
        if held is None:
            return False
        del self._held[request.request_id]
        transfer = held.transfer
        sends = held.sends and status == COMPLETE and len(ids) >= transfer.blocks
        if sends:
            wanted = tuple(ids[: transfer.blocks])
            self._moves.sends.append(
                Move(
                    request.request_id, transfer.transfer, transfer.offset, transfer.blocks, 0, wanted, transfer.device
                )
            )
        self._tell(Ended(transfer.transfer, moves=sends or held.loads))
        return sends

    def take(self) -> Moves:
        """What has been decided since the last time."""
        moves, self._moves = self._moves, Moves()
        return moves

    def _of(self, request: Request) -> _Held | None:
        """Known of this request, read on first sight; None where it has no transfer, or none that fits it."""
        held = self._held.get(request.request_id)
        params = request.kv_transfer_params
        if held is not None or not params:
            return held
        sends, loads = bool(params.get("do_remote_decode")), bool(params.get("do_remote_prefill"))
        if not sends and not loads:
            return None
        try:
            transfer = msgspec.convert(dict(params), type=Transfer)
        except msgspec.ValidationError as error:
            log.error("a request's KV transfer cannot be read: %s %s", request.request_id, error)  # noqa: TRY400
            return None
        blocks = -(-transfer.tokens // self._block_tokens)
        if not 0 < transfer.tokens <= request.num_prompt_tokens or transfer.blocks != blocks:
            log.error("a request's KV transfer does not fit its prompt: %s %s", request.request_id, transfer)
            return None
        held = self._held[request.request_id] = _Held(transfer, sends)
        return held
