"""Into the running batch and through it: what becomes of an attempt once its whole KV buffer is in our staging.

Owns the order of the steps from there to the last token, and the freeing of everything an attempt holds. How the buffer
came, and who must hear of a bad ending, is its owner's business. Tokens are `streams`' business.
"""

from services.decode.incoming import Incoming, Member
from services.decode.streams import Stream, Streams
from shared.failpoints import failpoint
from shared.messages import Request
from shared.policy.admission import DecodeAdmission
from shared.policy.known import Key
from shared.worker.roster import Roster
from shared.worker.standing import Standing
from shared.worker.tokens import sequence_of


class Batch:
    """Takes attempts in. One call of `decode`, then one of `free`, per attempt."""

    def __init__(
        self, standing: Standing, roster: Roster[Member], admission: DecodeAdmission, streams: Streams
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._roster = roster
        self._admission = admission
        self.streams = streams

    async def decode(self, member: Member, request: Request, cached_tokens: int) -> None:
        """Insert the attempt's buffer and return at its stream's end. Raises what the stream must end with.

        `request` ends with the token that was sampled with the prompt; the buffer holds the KV of all others.
        """
        staging = member.staging
        if staging is None:
            raise AssertionError("an attempt enters the batch with its buffer")
        sequence = sequence_of(request)
        text = self._standing.open_text(request, sequence.tokens[request.prompt_tokens :])
        member.stream = stream = Stream(sequence.key, request, text, cached_tokens, member.progress)
        self.streams.join(stream)
        kv_tokens = len(sequence.tokens) - 1
        # a tail may follow the KV
        await self._engine.insert(sequence, kv_tokens, staging.view[: self._engine.info.kv_bytes(kv_tokens)])
        failpoint("decode.inserted")
        staging.release()
        self._admission.inserted(request.request_id, request.attempt)
        member.check()
        error = await stream.over
        if error is not None:
            raise error

    async def free(self, member: Member) -> None:
        """Free everything the attempt holds, whatever it holds."""
        if member.stream is not None:
            self.streams.leave(member.stream)
        try:
            await self._engine.release(member.key)
        finally:
            if isinstance(member, Incoming):
                member.expected.cancel()
            if member.staging is not None:
                member.staging.release()
            full = not self._admission.free
            self.call(self._admission.ended(member.request_id, member.attempt))
            if full and self._admission.free:
                self._standing.freed()  # computed KV waits for it in a prefill's slot

    def call(self, keys: list[Key]) -> None:
        """Give these attempts their turn to enter the batch."""
        for request_id, attempt in keys:
            held = self._roster.get(request_id, attempt)
            if isinstance(held, Incoming):
                held.turn.set()
