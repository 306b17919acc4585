"""One arena for all engines of a test session whose own processes work in it, and what a test has of it."""

from typing import Final

from shared.kv.arena import Arena, Range

ARENA_BYTES: Final = 1 << 30


class SharedArena:
    """One per session: what one engine has filled another can take in."""

    _arena: Arena | None = None
    _ranges: list[Range] = []

    @classmethod
    def memory(cls, content: bytes) -> memoryview:
        """A range of it, until `forget`."""
        taken = cls.arena().reserve(max(1, len(content)))
        cls._ranges.append(taken)
        view = taken.view[: len(content)]
        view[:] = content
        return view

    @classmethod
    def forget(cls) -> None:
        """At the end of a test."""
        while cls._ranges:
            cls._ranges.pop().release()

    @classmethod
    def arena(cls) -> Arena:
        """Made when it is first asked for."""
        if cls._arena is None:
            cls._arena = Arena(ARENA_BYTES, shared=True)
        return cls._arena
