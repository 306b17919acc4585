"""Engines of vLLM for the contract suite. Each takes half a minute to start, so tests with equal options share them.

They live as long as the event loop, which is the session's in `make test-vllm`. All stage their buffers in one arena,
so that what one has filled another can take in.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final

from shared.engine import Engine
from shared.models import ModelSpec
from tests.shared_arena import SharedArena

MOST: Final = 5
"""Engines that are kept idle; each takes two processes and a gigabyte."""
BLOCK: Final = 32
"""Tokens: the least that vLLM's attention on CPU takes."""
Key = tuple[tuple[str, Any], ...]


class VllmPool:
    """One per session."""

    _idle: "OrderedDict[int, tuple[Key, Engine]]" = OrderedDict()
    _keys: dict[int, Key] = {}

    @classmethod
    async def engine(cls, spec: ModelSpec, chosen: dict[str, Any]) -> Engine:
        """A started engine that nobody else uses now."""
        from shared.engine.vllm_engine.engine import VllmEngine
        from shared.engine.vllm_engine.requests import Requests

        options = translated(chosen)
        key = tuple(sorted(options.items()))
        found = next((number for number, (other, _) in reversed(cls._idle.items()) if other == key), None)
        if found is None:
            while len(cls._idle) >= MOST:
                _, (_, oldest) = cls._idle.popitem(last=False)
                await oldest.close()
            from shared.text import open_tokenizer

            engine = VllmEngine(spec, options, lambda: open_tokenizer(spec))
            engine.stage(SharedArena.arena())
            await engine.start()
        else:
            engine = cls._idle.pop(found)[1]
        cls._keys[id(engine)] = key
        engine._book.info = replace(engine.info, eos_ids=spec.eos_ids)
        engine._requests = Requests(spec.eos_ids)
        return engine

    @classmethod
    async def give_back(cls, engine: Engine) -> None:
        """Keep it for the next test, if it is well and empty."""
        key = cls._keys.pop(id(engine), None)
        for held in engine._book:
            await engine.release(held.key)
        if key is None or engine._feed.ended is not None:
            await engine.close()
            return
        engine._feed._unread.clear()
        cls._idle[id(engine)] = (key, engine)

    @classmethod
    def end(cls) -> None:
        """At the end of the session, whose event loop is gone by then."""
        while cls._idle:
            _, (_, engine) = cls._idle.popitem()
            engine._core.close()
            engine._hub._context.destroy(linger=0)  # an open socket would hold the interpreter's end up for ever
            engine._hub._folder.cleanup()


def translated(chosen: dict[str, Any]) -> dict[str, Any]:
    """The suite's options, which are made for blocks of four tokens, for vLLM's."""
    size = BLOCK if chosen["block_size"] <= BLOCK // 2 and chosen["block_size"] != BLOCK // 4 else 2 * BLOCK
    blocks = chosen["num_blocks"]
    return {
        **{name: value for name, value in chosen.items() if name not in ("block_size", "num_blocks")},
        "block_size": size,
        "num_blocks": blocks if blocks == 64 else -(-blocks * 4 // size),
        "dtype": "float32",
        "enforce_eager": True,
    }
