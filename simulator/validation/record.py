"""What was recorded of real clusters: every load's runs, and what a message and a client's way cost there."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from simulator.engine.kept import of_sim
from simulator.measures.distribution import Distribution
from simulator.validation.loads import CALIBRATION, LENGTHS, Load
from simulator.validation.served import Answer, Take

RECORD: Final = resources.files("simulator.validation") / "recorded.json"
COLUMNS: Final = ("late_ms", "ttft_ms", "tpot_ms", "e2e_ms")


@dataclass(frozen=True, slots=True)
class Costs:
    """What the machine takes beyond the engines' computing."""

    message_s: float  # from sender to its handler's end
    edge_s: float  # client to gateway and back, before the first token
    kv_bytes_s: float  # KV written, sent and read


def costs(takes: Sequence[Take]) -> Costs:
    """Fit them to requests that were alone (`CALIBRATION`), by medians.

    A hand-off is what comes between the tokens beyond the decode's steps: two messages, and a time for each token of
    KV, which the two lengths of prompts tell apart. A first token takes its computing, the offer there and the token
    back, and the rest is the edge.
    """
    handing = {tokens: _handing_ms(takes, tokens) for tokens in LENGTHS}
    short, long = LENGTHS
    token_ms = (handing[long] - handing[short]) / (long - short)
    message_ms = (handing[short] - short * token_ms) / 2
    edge_ms = _beyond_ms(takes, short) - 2 * message_ms
    kv_bytes = CALIBRATION.options["kv_bytes_per_token"]
    return Costs(max(0.0, message_ms) / 1000, max(0.0, edge_ms) / 1000, 1000 * kv_bytes / max(1e-6, token_ms))


def _handing_ms(takes: Sequence[Take], tokens: int) -> float:
    """From the first token to the last beyond the steps that were computed."""
    steps = CALIBRATION.arrivals()[0].output_tokens - 1
    step_ms = CALIBRATION.options["decode_step_ms"] + CALIBRATION.options["decode_seq_ms"]
    return steps * (_median(one.tpot_ms for one in _answers(takes, tokens)) - step_ms)


def _beyond_ms(takes: Sequence[Take], tokens: int) -> float:
    """To the first token beyond the computing of the prompt."""
    computing_s = of_sim(CALIBRATION.options).timing.prefill_s(tokens, 0)
    return _median(one.ttft_ms for one in _answers(takes, tokens)) - 1000 * computing_s


def _answers(takes: Sequence[Take], tokens: int) -> list[Answer]:
    """Those to prompts of that length."""
    arrivals = CALIBRATION.arrivals()
    return [
        answer
        for take in takes
        for one, answer in zip(arrivals, take, strict=True)
        if one.input_tokens == tokens and answer.ok
    ]


def _median(values: Iterable[float | None]) -> float:
    return Distribution(value for value in values if value is not None).percentile(50.0)


def recorded() -> dict[str, Any]:
    """Runs by load, and the machine and the date."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def takes(record: dict[str, Any], load: Load) -> list[Take]:
    """A load's runs. Raises ValueError where the load has become another one."""
    run = record["runs"][load.name]
    if run["options"] != load.options or run["fleet"] != fleet(load):
        raise ValueError(f"{load.name} was recorded with other settings: record it anew")
    return [[Answer(*one) for one in zip(*(take[name] for name in COLUMNS), strict=True)] for take in run["takes"]]


def kept(load: Load, runs: list[Take]) -> dict[str, Any]:
    """What the record has of a load: a list for each of `COLUMNS`, times to a tenth of a millisecond."""
    return {"options": load.options, "fleet": fleet(load), "takes": [_columns(take) for take in runs]}


def _columns(take: Take) -> dict[str, list[float | None]]:
    def column(name: str) -> list[float | None]:
        values: list[float | None] = [getattr(one, name) for one in take]
        return [None if value is None else round(value, 1) for value in values]

    return {name: column(name) for name in COLUMNS}


def fleet(load: Load) -> list[float]:
    """What is kept of a load's fleet beside the engine's options."""
    return [load.prefills, load.decodes, load.prefill_slots, load.queue_s]
