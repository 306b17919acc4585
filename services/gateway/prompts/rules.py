"""Rules on a request: which of the scenarios that share a name is to have it.

Pure. A rule that is not set holds for everything.
"""

from dataclasses import dataclass
from typing import Any, Final

from services.gateway.content.patterns import LONGEST, BadPattern, compiled
from shared.config.scenario import WhenSettings

READ_CHARS: Final = 4_096
"""Of a prompt's first text, in which a pattern is looked for."""
ANY: Final = "any"


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at."""

    prompt_tokens: int = 0
    max_tokens: int | None = None  # None: the client does not say, so there may be any number
    tools: bool = False
    streamed: bool = False
    tenant: str = ""
    text: str = ""  # the first one of the prompt


class Rules:
    """Those of one scenario. Raises BadPattern."""

    def __init__(self, when: WhenSettings) -> None:
        self._when = when
        self._pattern: Any = None  # RE2's: whatever the operator writes, it takes linear time
        if when.prompt_matches:
            if len(when.prompt_matches) > LONGEST:
                raise BadPattern(f"it has {len(when.prompt_matches)} characters; the limit is {LONGEST}")
            self._pattern = compiled(when.prompt_matches)

    @property
    def any(self) -> bool:
        """Whether there is a rule."""
        return self._when != WhenSettings()

    @property
    def counts(self) -> bool:
        """Whether the prompt's tokens are asked for."""
        return self._when.prompt_tokens_from > 0 or self._when.prompt_tokens_below > 0

    @property
    def reads(self) -> bool:
        """Whether the prompt's first text is asked for."""
        return self._pattern is not None

    def why_not(self, facts: Facts) -> str:
        """Name the first rule that does not hold; nothing where all do."""
        when = self._when
        for name, least, below, value in (
            ("prompt_tokens", when.prompt_tokens_from, when.prompt_tokens_below, facts.prompt_tokens),
            ("max_tokens", when.max_tokens_from, when.max_tokens_below, facts.max_tokens),
        ):
            if value is not None and value < least:
                return f"{name}_from is {least}"
            if below and (value is None or value >= below):
                return f"{name}_below is {below}"
        for name, wanted, is_so in (("tools", when.tools, facts.tools), ("streamed", when.streamed, facts.streamed)):
            if wanted != ANY and (wanted == "yes") is not is_so:
                return f"{name} is {wanted}"
        if when.tenants and facts.tenant not in when.tenants:
            return "tenants are others"
        if self._pattern is not None and self._pattern.search(_plain(facts.text)) is None:
            return "prompt_matches does not"
        return ""


def _plain(text: str) -> str:
    """Leave out what RE2 cannot read: halves of characters."""
    return text[:READ_CHARS].encode("utf-8", "replace").decode()
