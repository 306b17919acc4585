"""Text completions, as clients ask for them."""

from typing import Annotated, Final

from msgspec import Meta

from services.gateway.api.parameters import MAX_CHOICES, Parameters, TokenId
from shared.errors import BadRequest

MAX_PROMPT_LISTS: Final = 128


class CompletionRequest(Parameters, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as tokens. Raises BadRequest for a mixed list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(item, int) for item in self.prompt):
            return [[item for item in self.prompt if isinstance(item, int)]]
        mixed = "prompt is a string, a list of strings, a list of tokens or a list of lists of tokens, not a mixture"
        if len(self.prompt) > MAX_PROMPT_LISTS:
            raise BadRequest(f"at most {MAX_PROMPT_LISTS} prompts in one request, got {len(self.prompt)}", "prompt")
        kind = type(self.prompt[0])
        if any(type(item) is not kind for item in self.prompt):
            raise BadRequest(mixed, "prompt")
        return [item for item in self.prompt if not isinstance(item, int)]

    @property
    def choices(self) -> int:
        """Choices to generate for each prompt."""
        return self.best_of or self.n or 1

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        super().check()
        if self.echo and self.logprobs is not None:
            raise BadRequest("Unsupported parameter: 'echo' with logprobs; the prompt's are not computed", "echo")
        if self.suffix:
            raise BadRequest("Unsupported parameter: 'suffix' must be empty", "suffix")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise BadRequest(f"best_of must be at least n, which is {self.n or 1}", "best_of")
        if self.stream and self.choices != (self.n or 1):
            raise BadRequest("best_of cannot be streamed: which one is best shows at the end", "best_of")
