"""A decode that dies of a certain prompt, as of a bug in its engine: run in place of `services.decode`."""

import os
import signal
import sys

from services.decode.service import Decode
from shared.engine import Sequence
from shared.engine.sim_engine.engine import SimEngine
from shared.lifecycle import main

POISON = b"poison"

_insert = SimEngine.insert


async def _die_of_it(self: SimEngine, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
    if POISON in bytes(token for token in sequence.tokens if token < 256):
        os.kill(os.getpid(), signal.SIGKILL)
    await _insert(self, sequence, kv_tokens, buffer)


if __name__ == "__main__":
    SimEngine.insert = _die_of_it  # type: ignore[method-assign]
    sys.exit(main(Decode))
