"""What an engine computes: sequences that are decoded, and prompts."""

from collections.abc import Callable

from msgspec import Struct


class Sequence(Struct, eq=False):
    """A sequence that is decoded. `over` is called with the batch's time when its last token is there."""

    tokens: int  # that it holds when it joins, the newest included
    left: int  # to be generated
    over: Callable[[], None]
    evicted: Callable[[], None]  # for want of blocks
    joined: int = -1  # the step before its first; -1: not yet
    gone: bool = False

    @property
    def ends(self) -> int:
        """The step that brings its last token."""
        return self.joined + self.left


class Prompt(Struct, eq=False):
    """A prompt that is computed here. `computed` is called when its first token is there."""

    new: int  # tokens still to be computed
    behind: int  # that are there
    computed: Callable[[], None]
    gone: bool = False
