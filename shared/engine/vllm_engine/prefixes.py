"""Which prompts' KV vLLM's prefix cache probably still has. Pure: a guess from what was computed, oldest forgotten."""

from collections import OrderedDict
from itertools import islice, takewhile

from shared.engine.torch_engine.blocks import Digest, digests


class Prefixes:
    """Remembers as many blocks as the engine has. None: the engine has no prefix cache."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self._blocks = blocks
        self._block_tokens = block_tokens
        self._seen: OrderedDict[Digest, None] = OrderedDict()

    def add(self, tokens: list[int]) -> None:
        """The KV of these tokens is in the engine now."""
        if not self._blocks:
            return
        for digest in digests(tokens, self._block_tokens):
            self._seen[digest] = None
            self._seen.move_to_end(digest)
        while len(self._seen) > self._blocks:
            self._seen.popitem(last=False)

    def count(self, tokens: list[int]) -> int:
        """Count the leading tokens of which it has the KV; the last token is always computed."""
        whole = (len(tokens) - 1) // self._block_tokens
        known = takewhile(self._seen.__contains__, islice(digests(tokens, self._block_tokens), whole))
        return sum(1 for _ in known) * self._block_tokens
