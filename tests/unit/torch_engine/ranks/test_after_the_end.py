"""An engine whose ranks have failed says nothing more, whatever its own thread still computes."""

from pathlib import Path

import pytest

from shared.engine import Sampled, Step
from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.runner import Outcome
from shared.engine.torch_engine.worker import Report
from shared.errors import EngineFailed
from tests.engine_house import SIZES
from tests.tiny_models import make


async def test_tokens_that_come_after_the_end_are_dropped(tmp_path: Path) -> None:
    make("llama", tmp_path)
    engine = TorchEngine(tmp_path, SIZES)
    await engine.start()
    engine._take(Report(ended=EngineFailed("rank 1 has ended", fatal=True)))
    engine._take(Report(outcome=Outcome(step=Step([Sampled("a", 5)]))))
    with pytest.raises(EngineFailed, match="rank 1 has ended"):
        await anext(engine.steps())
    await engine.close()
