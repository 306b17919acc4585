"""Answers POST /v1/moderations by the built-in rules.

Owns the choice of moderators that judge. Nothing of it is counted or written down: nobody's request is refused here.
"""

import asyncio
import secrets
from typing import Any

from services.gateway.api.moderations import ModerationRequest, judgment
from services.gateway.content.moderation import Moderation
from shared.errors import UnknownScenario

THEIRS = ("omni-moderation", "text-moderation")
"""How OpenAI's own models begin; clients send them unasked."""


async def inquire(moderation: Moderation, asked: ModerationRequest) -> dict[str, Any]:
    """Judge texts; OpenAI's answer. Raises UnknownScenario."""
    rules = moderation.rules
    if asked.model is not None and not asked.model.startswith(THEIRS):
        if asked.model not in rules:
            raise UnknownScenario("The model is none of the moderators with rules that are configured here", "model")
        rules = {asked.model: rules[asked.model]}
    elif not rules:
        raise UnknownScenario("No moderator with rules is configured here", "model")
    categories = sorted({category for one in rules.values() for category in one.categories})
    results = []
    for text in asked.texts():
        found = [await moderation.search(one, [text]) for one in rules.values()]
        await asyncio.sleep(0)  # the streams have their turn: many short texts are one long one
        results.append(judgment(categories, {category for category in found if category is not None}))
    return {"id": f"modr-{secrets.token_hex(16)}", "model": asked.model or "baton", "results": results}
