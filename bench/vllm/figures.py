"""From what was measured to the table: every figure beside that of vLLM's own server, in its fastest form."""

from bench.load import Measured
from bench.table import Row

BASELINE = "vllm"
HEADLINE = 64
"""Streams at which ScaleLLM (arXiv 2408.00008) compares times between tokens: its gateway had 4.3 times less there."""

Found = dict[str, dict[int, Measured]]
"""By server, by number of streams."""


def baseline(found: Found, streams: int) -> tuple[str, Measured] | None:
    """The form of vLLM's own server that makes the most tokens a second with so many streams."""
    own = [(name, figures[streams]) for name, figures in found.items() if _is_own(name) and streams in figures]
    return max(own, key=lambda one: one[1].tokens_s, default=None)


def table(found: Found) -> list[Row]:
    """Rows by number of streams, then by server."""
    made: list[Row] = []
    for streams in sorted({streams for figures in found.values() for streams in figures}):
        best = baseline(found, streams)
        for name, figures in found.items():
            if best is not None and not _is_own(name) and streams in figures:
                made += _rows(f"{name}, {streams} streams", figures[streams], *best)
    best = baseline(found, HEADLINE)
    for name, figures in found.items():
        if best is not None and not _is_own(name) and HEADLINE in figures:
            what = f"{best[0]}'s time between tokens at {HEADLINE} streams"
            made.append(Row(what, best[1].tpot_p50_ms, "ms", name, figures[HEADLINE].tpot_p50_ms))
    return made


def _is_own(name: str) -> bool:
    return name.partition(",")[0] == BASELINE


def _rows(what: str, mine: Measured, name: str, theirs: Measured) -> list[Row]:
    rows = [
        Row(f"{what}: throughput", mine.tokens_s, "tokens/s", name, theirs.tokens_s),
        Row(f"{what}: first token p50", mine.ttft_p50_ms, "ms", name, theirs.ttft_p50_ms),
        Row(f"{what}: first token p99", mine.ttft_p99_ms, "ms", name, theirs.ttft_p99_ms),
        Row(f"{what}: between tokens p50", mine.tpot_p50_ms, "ms", name, theirs.tpot_p50_ms),
        Row(f"{what}: between tokens p99", mine.tpot_p99_ms, "ms", name, theirs.tpot_p99_ms),
    ]
    if mine.all_us:  # a program without a server has no processes to tell apart
        rows += [
            Row(f"{what}: front end's CPU per token", mine.front_us, "us", name, theirs.front_us),
            Row(f"{what}: all CPU per token", mine.all_us, "us", name, theirs.all_us),
            Row(f"{what}: the client's CPU per token", mine.client_us, "us", name, theirs.client_us),
        ]
    return rows
