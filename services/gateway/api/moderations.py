"""Texts to be judged by the built-in rules, as clients of OpenAI's moderation API ask."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.api.chat import TextPart

MAX_INPUTS: Final = 128


class ModerationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/moderations. `model` names one moderator; without it, or with a name of OpenAI's, all of them judge."""

    input: str | Annotated[list[str | TextPart], Meta(min_length=1, max_length=MAX_INPUTS)]
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None

    def texts(self) -> list[str]:
        """Each text that gets a judgment of its own; parts are one together, as OpenAI has it."""
        if isinstance(self.input, str):
            return [self.input]
        parts = [one.text for one in self.input if isinstance(one, TextPart)]
        strings = [one for one in self.input if isinstance(one, str)]
        return strings + (["\n".join(parts)] if parts else [])


def judgment(categories: list[str], found: set[str]) -> dict[str, Any]:
    """Make OpenAI's result for one text."""
    return {
        "flagged": bool(found),
        "categories": {name: name in found for name in categories},
        "category_scores": {name: float(name in found) for name in categories},
        "category_applied_input_types": {name: ["text"] if name in found else [] for name in categories},
    }
