"""From what was measured to the table: every figure beside that of vLLM's own server."""

from bench.table import Row
from bench.vllm.load import Measured

BASELINE = "vllm"
HEADLINE = 64
"""Streams at which ScaleLLM (arXiv 2408.00008) compares times between tokens: its gateway had 4.3 times less there."""


def table(found: dict[str, dict[int, Measured]]) -> list[Row]:
    """Rows by number of streams, then by server."""
    made: list[Row] = []
    for streams, theirs in found.get(BASELINE, {}).items():
        for name, figures in found.items():
            if name != BASELINE:
                made += _rows(f"{name}, {streams} streams", figures[streams], theirs)
    for name, figures in found.items():
        if name != BASELINE and HEADLINE in figures and BASELINE in found:
            mine, theirs = figures[HEADLINE], found[BASELINE][HEADLINE]
            what = f"vllm's time between tokens at {HEADLINE} streams"
            made.append(Row(what, theirs.tpot_p50_ms, "ms", name, mine.tpot_p50_ms))
    return made


def _rows(what: str, mine: Measured, theirs: Measured) -> list[Row]:
    return [
        Row(f"{what}: throughput", mine.tokens_s, "tokens/s", BASELINE, theirs.tokens_s),
        Row(f"{what}: first token p50", mine.ttft_p50_ms, "ms", BASELINE, theirs.ttft_p50_ms),
        Row(f"{what}: first token p99", mine.ttft_p99_ms, "ms", BASELINE, theirs.ttft_p99_ms),
        Row(f"{what}: between tokens p50", mine.tpot_p50_ms, "ms", BASELINE, theirs.tpot_p50_ms),
        Row(f"{what}: between tokens p99", mine.tpot_p99_ms, "ms", BASELINE, theirs.tpot_p99_ms),
        Row(f"{what}: front end's CPU per token", mine.front_us, "us", BASELINE, theirs.front_us),
        Row(f"{what}: all CPU per token", mine.all_us, "us", BASELINE, theirs.all_us),
    ]
