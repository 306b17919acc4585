"""The accelerators of a machine, as `instance.devices` lists them, and how many of them a worker needs. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.config.groups import configured_groups, in_group
from shared.config.scenario import ScenarioSettings

VARIABLES: Final = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
"""What the drivers read, by kind of device: a process sees these devices alone, counted from 0."""
MOST: Final = 1024
"""Devices of a machine."""
_RANGE: Final = re.compile(r"(\d{1,4})-(\d{1,4})")
_ID: Final = re.compile(r"\d{1,4}|(?:GPU|MIG)-[0-9A-Za-z-]+")
_SIZES: Final = {"vllm": ("tensor_parallel_size", "pipeline_parallel_size"), "torch": ("tensor_parallel",)}
"""The options by which an engine splits a model over devices."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Devices of one kind, in the order in which they are handed out."""

    kind: str = ""
    ids: tuple[str, ...] = ()

    def environment(self, ids: Sequence[str]) -> dict[str, str]:
        """What makes a process see these alone; nothing for none, so that what it inherits stays."""
        return {VARIABLES[self.kind]: ",".join(ids)} if ids else {}


def read_devices(words: Sequence[str]) -> Devices:
    """Read `npu:0-3`, `npu:5`, `cuda:GPU-<uuid>`; one without a kind is of the kind before it. Raises ValueError."""
    kind, ids = "", []
    for word in words:
        own, between, rest = word.rpartition(":")
        if between and own not in VARIABLES:
            raise ValueError(f"{word!r} is of no kind that is known: {', '.join(VARIABLES)}")
        if between and kind not in ("", own):
            raise ValueError(f"{word!r} is of another kind than {kind}, and one machine has one kind")
        kind = own or kind
        if not kind:
            raise ValueError(f"{word!r} does not say of what kind it is; write npu:{word} or cuda:{word}")
        ids += _ids(word, rest)
    if len(set(ids)) != len(ids):
        raise ValueError("it names a device twice")
    return Devices(kind, tuple(ids))


def _ids(word: str, text: str) -> list[str]:
    if _ID.fullmatch(text):
        return [text]
    found = _RANGE.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]) or int(found[2]) >= MOST:
        raise ValueError(f"{word!r} is no device and no range of them, like npu:3 or npu:0-7")
    return [str(number) for number in range(int(found[1]), int(found[2]) + 1)]


def devices_needed(settings: ScenarioSettings) -> int:
    """How many a worker needs: as it is said, or as its engine splits the model; none for an engine on the processor.

    What the engine's options are worth is the engine's to check.
    """
    if settings.devices_per_worker:
        return settings.devices_per_worker
    return 0 if _on_processor(settings) else _split(settings)


def _on_processor(settings: ScenarioSettings) -> bool:
    on_cpu = str(settings.engine_options.get("device", "cpu")).partition(":")[0] == "cpu"
    return settings.engine == "sim" or (settings.engine == "torch" and on_cpu)


def _split(settings: ScenarioSettings) -> int:
    sizes = [settings.engine_options.get(name, 1) for name in _SIZES.get(settings.engine, ())]
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


def of_any_worker(settings: ScenarioSettings) -> int:
    """The most that a worker of any of its groups needs: what a standby must have to become that."""
    names = [group.name for group in configured_groups(settings)]
    return max((devices_needed(in_group(settings, name)) for name in names), default=0)


def device_faults(words: Sequence[str], scenarios: dict[str, ScenarioSettings]) -> list[str]:
    """Name what is wrong with a machine's devices, and with what workers are to have of them."""
    faults = []
    try:
        read_devices(words)
    except ValueError as error:
        faults.append(f"instance.devices: {error}")
    for name, settings in scenarios.items():
        for own in (in_group(settings, group.name) for group in configured_groups(settings)):
            if 0 < own.devices_per_worker < _split(own) and not _on_processor(own):
                few = f"scenario.{name}.devices_per_worker is {own.devices_per_worker}"
                faults.append(f"{few}, but its engine splits the model over {_split(own)}")
                break
    return faults
