"""Whether a worker takes a request: slots at prefill; blocks, staging and sequences at decode.

Owns the counts and which attempts are known here. Holds no memory and stops nobody: the worker does what it says. An
offer is answered at once; the only wait is decode's, which is small on purpose, because a long one would fix the choice
of a decode too early.
"""

from dataclasses import dataclass
from typing import Final

from shared.errors import Code
from shared.policy.known import Key, Known

LOCAL_ONE_IN: Final = 4
"""Of a decode's sequences so many may be prompts that it computes itself: the others' tokens come later for each."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Answer Accepted (or KvGrant)."""

    repeated: bool = False  # already held: answer as before, start nothing
    supersedes: tuple[int, ...] = ()  # older attempts of the request held here: stop them; each still frees its own


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer Rejected."""

    code: Code
    message: str
    retryable: bool = True


@dataclass(slots=True)
class Slot:
    """What an attempt holds at prefill."""

    kv_bytes: int


@dataclass(slots=True)
class Room:
    """What an attempt holds at decode. What the engine counts itself is not counted here again."""

    blocks: int
    kv_bytes: int
    received: bool = False
    called: bool = False  # told to enter the batch
    local: bool = False  # its prompt is computed here


class PrefillAdmission:
    """Slots of a prefill: accept while b < b_p, reject at b = b_p. A slot is held until its KV has left."""

    def __init__(self, slots: int, staging_bytes: int) -> None:
        self.slots = slots
        self._staging_bytes = staging_bytes
        self._staged = 0
        self._known: Known[Slot] = Known()
        self._draining = False

    @property
    def free(self) -> int:
        """Slots; 0 while draining."""
        return 0 if self._draining else max(0, self.slots - len(self._known))

    @property
    def used(self) -> int:
        """Slots held."""
        return len(self._known)

    def offer(self, request_id: str, attempt: int, *, kv_bytes: int, deadline: float, now: float) -> Admitted | Refused:
        """Hold a slot and kv_bytes of staging until `left`, or say why not."""
        key = (request_id, attempt)
        if answer := _answered_before(self._known, key):
            return answer
        if problem := self._problem(kv_bytes, deadline, now):
            return problem
        older = self._known.older(key)
        self._known.hold(key, Slot(kv_bytes))
        self._staged += kv_bytes
        return Admitted(supersedes=older)

    def left(self, request_id: str, attempt: int) -> bool:
        """Free the slot: the attempt's KV has left, or it ended. False: it held none (idempotent)."""
        slot = self._known.drop((request_id, attempt))
        if slot is None:
            return False
        self._staged -= slot.kv_bytes
        return True

    def cancel(self, request_id: str, attempt: int) -> list[Key]:
        """Remember that attempts up to this one are unwanted; name those held, to be stopped (each calls `left`)."""
        return self._known.cancel((request_id, attempt))

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._draining = True

    def _problem(self, kv_bytes: int, deadline: float, now: float) -> Refused | None:
        if self._draining:
            return Refused(Code.DRAINING, "this worker takes nothing new")
        if deadline <= now:
            return Refused(Code.DEADLINE, "the first token is overdue", retryable=False)
        if kv_bytes > self._staging_bytes:
            text = f"{kv_bytes} bytes of KV are more than all of the staging, {self._staging_bytes} bytes"
            return Refused(Code.CONTEXT_TOO_LONG, text, retryable=False)
        if len(self._known) >= self.slots:
            return Refused(Code.OVERLOADED, f"all {self.slots} slots are held")
        if self._staged + kv_bytes > self._staging_bytes:
            return Refused(Code.OVERLOADED, f"{self._staging_bytes - self._staged} bytes of staging are left")
        return None


class DecodeAdmission:
    """Room of a decode. An attempt is granted, received, called into the batch, inserted, and ended.

    One whose prompt is computed here has a place in the batch from the start, and its blocks are held beside those that
    the engine computes with: between the two, nobody else may take them.
    """

    def __init__(self, blocks: int, staging_bytes: int, sequences: int, waiting: int) -> None:
        self.sequences = sequences
        self._blocks = blocks
        self._staging_bytes = staging_bytes
        self._waiting = waiting
        self._granted_blocks = 0  # by grants that the engine does not count yet
        self._staged = 0
        self._called = 0
        self._local = 0  # computed here, and not inserted yet
        self._line: dict[Key, None] = {}  # received, and not called yet
        self._known: Known[Room] = Known()
        self._draining = False

    @property
    def free(self) -> int:
        """Sequences that can still be granted, the wait left aside; 0 while draining."""
        return 0 if self._draining else max(0, self.sequences - len(self._known))

    @property
    def used(self) -> int:
        """Attempts held, from grant to end."""
        return len(self._known)

    @property
    def local(self) -> int:
        """Prompts that are computed here."""
        return self._local

    @property
    def granted_blocks(self) -> int:
        """Blocks promised beside those that the engine counts as used."""
        return self._granted_blocks

    def offer(
        self,
        request_id: str,
        attempt: int,
        *,
        blocks: int,
        kv_bytes: int,
        deadline: float,
        free_blocks: int,
        now: float,
        local: bool = False,
    ) -> Admitted | Refused:
        """Hold blocks, staging and a place, in batch or wait, until `ended`. `free_blocks`: the engine's, now.

        `local`: its prompt is to be computed here, so it needs a place in the batch at once.
        """
        key = (request_id, attempt)
        if answer := _answered_before(self._known, key):
            return answer
        problem = self._problem(blocks, kv_bytes, free_blocks) or (self._no_place() if local else None)
        if deadline <= now:
            problem = Refused(Code.DEADLINE, "the request's time is up", retryable=False)
        if problem is not None:
            return problem
        older = self._known.older(key)
        self._known.hold(key, Room(blocks, kv_bytes, called=local, local=local))
        self._called += local
        self._local += local
        self._granted_blocks += blocks
        self._staged += kv_bytes
        return Admitted(supersedes=older)

    def received(self, request_id: str, attempt: int) -> list[Key]:
        """Let the attempt into the line: its KV is complete. Names the attempts to insert now, in order."""
        room = self._known.get((request_id, attempt))
        if room is not None and not room.received and not room.called:
            room.received = True
            self._line[request_id, attempt] = None
        return self._call()

    def inserted(self, request_id: str, attempt: int) -> None:
        """Give back blocks and staging: the engine counts the blocks itself from here on. Its prompt is computed."""
        if room := self._known.get((request_id, attempt)):
            self._give_back(room)

    def ended(self, request_id: str, attempt: int, *, began: bool = True) -> list[Key]:
        """Give back everything of an attempt, in whatever state (idempotent). Names the attempts to insert now.

        Not `began`: it was refused after all, and may be offered again.
        """
        room = self._known.drop((request_id, attempt), over=began)
        if room is not None:
            self._give_back(room)
            self._line.pop((request_id, attempt), None)
            self._called -= room.called
        return self._call()

    def cancel(self, request_id: str, attempt: int) -> list[Key]:
        """Remember that attempts up to this one are unwanted; name those held, to be stopped (each calls `ended`)."""
        return self._known.cancel((request_id, attempt))

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._draining = True

    def _call(self) -> list[Key]:
        called: list[Key] = []
        while self._line and self._called < self.sequences:
            key = next(iter(self._line))
            del self._line[key]
            self._called += 1
            if room := self._known.get(key):
                room.called = True
            called.append(key)
        return called

    def _give_back(self, room: Room) -> None:
        self._granted_blocks -= room.blocks
        self._staged -= room.kv_bytes
        self._local -= room.local
        room.blocks = room.kv_bytes = 0
        room.local = False

    def _no_place(self) -> Refused | None:
        """Say why no prompt can be computed here now."""
        most = max(1, self.sequences // LOCAL_ONE_IN)
        if self._local >= most:
            return Refused(Code.OVERLOADED, f"{most} prompts are computed here already")
        if self._called >= self.sequences:
            return Refused(Code.OVERLOADED, f"all {self.sequences} places in the batch are taken")
        return None

    def _problem(self, blocks: int, kv_bytes: int, free_blocks: int) -> Refused | None:
        if self._draining:
            return Refused(Code.DRAINING, "this worker takes nothing new")
        if blocks > self._blocks or kv_bytes > self._staging_bytes:
            text = f"{blocks} blocks and {kv_bytes} bytes of KV are more than this worker has in all"
            return Refused(Code.CONTEXT_TOO_LONG, text, retryable=False)
        if len(self._known) >= self.sequences + self._waiting:
            return Refused(Code.OVERLOADED, f"all {self.sequences} sequences are taken and {self._waiting} wait")
        if blocks > free_blocks - self._granted_blocks:
            return Refused(Code.OVERLOADED, f"{max(0, free_blocks - self._granted_blocks)} blocks are left")
        if self._staged + kv_bytes > self._staging_bytes:
            return Refused(Code.OVERLOADED, f"{self._staging_bytes - self._staged} bytes of staging are left")
        return None


def _answered_before(known: Known[Slot] | Known[Room], key: Key) -> Admitted | Refused | None:
    """Answer an offer that came before, or comes too late."""
    if key in known:
        return Refused(Code.STALE, "the attempt was cancelled") if known.unwanted(key) else Admitted(repeated=True)
    if known.over(key):
        return Refused(Code.STALE, "the attempt is over, or a newer one came first")
    return None
