"""What a sampled token means for its stream: the text to show, whether the stream ends with it, its logprobs.

Pure. The detokenising and the search for stop strings are `shared.text`'s; this puts their answers into wire types.
"""

from typing import NamedTuple, Protocol

from shared.engine import Alternatives, Sampled, Sequence
from shared.messages import Finish, Finished, Logprobs, Request, Stopping, TokenLogprob, unpack_tokens
from shared.worker.running import key_of


class Text(Protocol):
    """The text of one stream as it grows; TextStream and ClockText of `shared.text`."""

    @property
    def matched(self) -> str | None:
        """The stop string that was found."""
        ...

    def push(self, token_id: int) -> str:
        """Text that may be shown now."""
        ...

    def flush(self) -> str:
        """Text that was held back."""
        ...


class Pieces(Protocol):
    """The part of a tokenizer that logprobs need."""

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """A token's own text and bytes."""
        ...


class Shown(NamedTuple):
    """What one token adds to its stream."""

    text: str
    reason: Finish | None  # why the stream ends here
    match: str | int | None  # the stop string or the stop token that ended it


def show(text: Text, sampled: Sampled, stopping: Stopping) -> Shown:
    """Put one token into the text of its stream. A stop string ends the stream even where the engine would go on."""
    finish = sampled.finish
    if finish is not None and sampled.stop_token is not None:
        match = sampled.stop_token if sampled.stop_token in stopping.stop_token_ids else None
        return Shown(text.flush(), finish, match)
    shown = text.push(sampled.token_id)
    matched = text.matched
    if matched is not None:
        return Shown(shown, Finish.STOP, matched)
    if finish is None:
        return Shown(shown, None, None)
    shown += text.flush()  # which completes an unfinished character, and with it perhaps a stop string
    matched = text.matched
    return Shown(shown, finish if matched is None else Finish.STOP, matched)


def logprobs_of(pieces: Pieces, entry: int, token_id: int, alternatives: Alternatives) -> Logprobs:
    """The logprobs of the frame's given entry, with each token's text and bytes."""
    top = [TokenLogprob(other, value, *pieces.piece(other)) for other, value in alternatives.top]
    return Logprobs(entry, TokenLogprob(token_id, alternatives.logprob, *pieces.piece(token_id)), top)


def finished(request: Request, shown: Shown, completion_tokens: int, cached_tokens: int) -> Finished:
    """The good ending of an attempt whose last token was shown."""
    return Finished(
        stream=request.stream,
        attempt=request.attempt,
        reason=shown.reason or Finish.STOP,
        completion_tokens=completion_tokens,
        prompt_tokens=request.prompt_tokens,
        cached_tokens=cached_tokens,
        stop_match=shown.match,
    )


def sequence_of(request: Request) -> Sequence:
    """What the engine is to compute for an attempt. Raises MalformedMessage when the tokens are none."""
    return Sequence(
        key=key_of(request.request_id, request.attempt),
        tokens=unpack_tokens(request.tokens),
        prompt_tokens=request.prompt_tokens,
        sampling=request.sampling,
        stopping=request.stopping,
    )
