"""Whether a worker takes a request: slots at prefill; blocks, staging and sequences at decode. Counts, holds nothing."""

from dataclasses import dataclass

from shared.errors import Code

Key = tuple[str, int]
"""(request_id, attempt)."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Answer Accepted (or KvGrant)."""

    repeated: bool = False  # already held: answer as before, start nothing
    supersedes: tuple[int, ...] = ()  # older attempts of the request held here: stop them; each still calls `left`


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer Rejected."""

    code: Code
    message: str
    retryable: bool = True


class PrefillAdmission:
    """Slots of a prefill: accept while b < b_p, reject at b = b_p. A slot is held until its KV has left."""

    def __init__(self, slots: int, staging_bytes: int) -> None:
        raise NotImplementedError

    def offer(self, request_id: str, attempt: int, *, kv_bytes: int, deadline: float, now: float) -> Admitted | Refused:
        """Admitted: a slot and kv_bytes of staging are held until `left`."""
        raise NotImplementedError

    def left(self, request_id: str, attempt: int) -> bool:
        """The attempt's KV has left, or it ended: its slot is free. False: it held none (idempotent)."""
        raise NotImplementedError

    def cancel(self, request_id: str, attempt: int) -> list[Key]:
        """Attempts up to and including this one are unwanted; those held, to be stopped (each then calls `left`)."""
        raise NotImplementedError

    def drain(self) -> None:
        """Take nothing new from now on."""
        raise NotImplementedError

    @property
    def free(self) -> int:
        """Slots; 0 while draining."""
        raise NotImplementedError


class DecodeAdmission:
    """Room of a decode: blocks, staging, sequences, and a deliberately small wait for a place in the batch."""

    def __init__(self, blocks: int, staging_bytes: int, sequences: int, waiting: int) -> None:
        raise NotImplementedError

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
    ) -> Admitted | Refused:
        """Admitted: blocks, staging and a place (or a place in the wait) are held. `free_blocks`: of the engine, now."""
        raise NotImplementedError

    def received(self, request_id: str, attempt: int) -> list[Key]:
        """The KV is complete; the attempts to insert into the engine now, in order."""
        raise NotImplementedError

    def inserted(self, request_id: str, attempt: int) -> None:
        """The engine counts the blocks itself from here on, and the staging is free."""
        raise NotImplementedError

    def ended(self, request_id: str, attempt: int) -> list[Key]:
        """The attempt is over, in whatever state (idempotent); the attempts to insert now."""
        raise NotImplementedError

    def cancel(self, request_id: str, attempt: int) -> list[Key]:
        """Attempts up to and including this one are unwanted; those held, to be stopped (each then calls `ended`)."""
        raise NotImplementedError

    def drain(self) -> None:
        """Take nothing new from now on."""
        raise NotImplementedError
