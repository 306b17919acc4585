"""One sequence inside the engine: its tokens, its blocks, how far its cache reaches. Pure."""

from dataclasses import dataclass, field

from shared.engine import Sequence
from shared.engine.torch_engine.blocks import Digest
from shared.engine.torch_engine.penalties import History


@dataclass(slots=True, eq=False)
class Run:
    """A sequence while the engine holds it. Tokens [0, computed) have keys and values in `blocks`."""

    key: str
    tokens: list[int]
    request: Sequence
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0  # of the prompt, found in the prefix cache
    digests: list[Digest] = field(default_factory=list)  # of the prompt's full blocks
    published: int = 0  # of them, how many are in the prefix index
    buffer: memoryview | None = None  # prefill: where the cache goes once it is complete
    history: History | None = None  # counts for the penalties, where there are any

    @property
    def generated(self) -> int:
        """Tokens beyond the client's prompt, those of earlier attempts included."""
        return len(self.tokens) - self.request.prompt_tokens
