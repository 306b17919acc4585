"""How a stream finds its way to another gateway: it asks the workers, and they tell what they have of it."""

from typing import Annotated, Final

import msgspec

from shared.messages.requests import Request
from shared.messages.tokens import Finished, Logprobs
from shared.messages.wire import Count, Message, Name

MOST_CLAIMED: Final = 129
"""Requests in one claim: a client request of one choice, or the choices of one that has several."""


class Claim(Message, frozen=True, tag="claim"):
    """gateway -> every worker of the scenario: these requests are mine now. Whoever has them stops, and tells all.

    With `look` nothing stops: a gateway asks what became of its own. Answered by a Claimed for each attempt that the
    worker has or keeps, then by one Claims.
    """

    request_ids: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MOST_CLAIMED)]
    gateway: Name
    tenant: str = ""  # whose client asks: streams of others stay where they are
    look: bool = False  # only tell


class Claimed(Message, frozen=True, tag="claimed"):
    """worker -> claiming gateway: one attempt as far as it came here. `request.tokens` ends with all it has brought."""

    instance: Name
    request: Request
    texts: list[str] = []  # of its last tokens, one each; those of earlier attempts are not known here
    logprobs: list[Logprobs] = []  # their entries count from the first of `texts`
    ended: Finished | None = None  # it ended well, with the last of the tokens


class Claims(Message, frozen=True, tag="claims"):
    """worker -> claiming gateway: that was all."""

    instance: Name
    streams: Count
