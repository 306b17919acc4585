"""What was recorded of real clusters: every load's runs, and what a message and a client's way cost there."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from simulator.validation.loads import Load
from simulator.validation.served import Answer, Take

RECORD: Final = resources.files("simulator.validation") / "recorded.json"
COLUMNS: Final = ("late_ms", "ttft_ms", "tpot_ms", "e2e_ms")


@dataclass(frozen=True, slots=True)
class Costs:
    """What the machine takes beyond the engines' computing."""

    message_s: float  # from sender to its handler's end
    edge_s: float  # client to gateway and back, before the first token
    kv_bytes_s: float  # KV written, sent and read


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
