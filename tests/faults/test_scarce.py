"""F22: KV blocks run out amid the batch. The streams that must go come back and are what they would have been."""

from pathlib import Path

from tests.faults.cluster import cluster
from tests.faults.history import History
from tests.faults.trial import trial


async def test_streams_that_lose_their_blocks_to_others_go_on_identically(tmp_path: Path) -> None:
    blocks = {"num_blocks": 48, "block_size": 16, "max_num_seqs": 12}
    async with cluster(tmp_path, prefills=1, decodes=2, options=dict(blocks)) as fleet:
        history = await trial(fleet, _their_end, seed=1, streams=14, tokens=220, begun=0)
        metrics = await fleet.metrics("gateway-1")
        assert metrics["baton_gateway_attempts_total"] > len(history.entries), "nothing ran out"


async def _their_end(history: History) -> None:
    await history.ended()
