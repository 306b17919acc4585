"""Compiles constraints in threads, for the sampler: begun when a row comes, waited for at its first draw."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from shared.errors import BadRequest
from shared.messages import Constraint
from shared.models.spec import ModelSpec
from shared.text.matching import Grammars, Matcher
from shared.text.opening import open_tokenizer

THREADS: Final = 2
READ_S: Final = 60.0
"""The longest wait for the model's tokens, which are read while it is loaded."""


class Languages:
    """Of one model, in one process. Its queue is as long as vLLM's batch at most."""

    def __init__(self, tokenizer: str | None, vocabulary: int) -> None:
        """`tokenizer` is the path of a tokenizer.json; empty: tokens are bytes; None: there are no constraints."""
        self._pool = ThreadPoolExecutor(THREADS, "constraints")
        self._grammars = self._pool.submit(_read, tokenizer, vocabulary)

    def compiles(self, constraint: Constraint, generated: list[int]) -> Future[Matcher]:
        """Begin to make a matcher. The future raises BadRequest where `Grammars.matcher` does."""
        return self._pool.submit(self._make, constraint, generated)

    def close(self) -> None:
        """Wait for the threads' end."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, constraint: Constraint, generated: list[int]) -> Matcher:
        return self._grammars.result(READ_S).matcher(constraint, generated)


def _read(tokenizer: str | None, vocabulary: int) -> Grammars:
    if tokenizer is None:
        raise BadRequest("this engine was started without a tokenizer, so it can follow no constraint")
    path = Path(tokenizer) if tokenizer else None
    spec = ModelSpec("", None, 0, None, frozenset(), "", path)
    return Grammars(open_tokenizer(spec), vocabulary)
