"""Profiles as files: one JSON object each, the published ones by name.

What is unknown, missing or out of bounds is an error that names it; a profile that is read is one that can be used.
"""

import json
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from shared.engine.sim_engine.options import read_options
from simulator.engine.forms import Forms, Sim
from simulator.engine.profile import Profile

PUBLISHED: Final = resources.files("simulator.engine") / "published"
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]


class ProfileError(ValueError):
    """A profile that cannot be read; says why, and which there are."""


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile's file."""

    name: str
    timing: Forms
    kv_tokens: Number
    kv_bytes_per_token: Number
    block_tokens: Number = 16
    max_sequences: Number = 256
    prefill_at_once: Annotated[int, msgspec.Meta(ge=0)] = 1
    devices: Number = 1
    load_s: Annotated[float, msgspec.Meta(ge=0.0)] = 60.0
    price: Positive = 1.0
    source: str = ""
    strategy: str = ""
    measured: dict[str, Any] = {}  # how, where and when, and how far the fit is off

    def profile(self) -> Profile:
        """What is simulated of it."""
        named = {name: getattr(self, name) for name in self.__struct_fields__ if name != "measured"}
        return Profile(**named)


def published() -> tuple[str, ...]:
    """Names of the profiles that come with Baton."""
    return tuple(sorted(one.name.removesuffix(".json") for one in PUBLISHED.iterdir() if one.name.endswith(".json")))


def read_profile(name: str) -> Profile:
    """A published one by its name, or one from a file by its path. Raises ProfileError."""
    path = Path(name)
    if name in published():
        text = (PUBLISHED / f"{name}.json").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise ProfileError(
            f"no profile is named {name}, and there is no such file; published: {', '.join(published())}"
        )
    try:
        read = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"{name}: {error}") from error
    faults = _faults(read)
    if faults:
        raise ProfileError(f"{name}: {'; '.join(faults)}")
    return msgspec.convert(read, Kept).profile()


def _faults(read: object) -> list[str]:
    """All that is wrong with it, a field at a time."""
    if not isinstance(read, dict):
        return ["a profile is one JSON object"]
    fields = {field.name: field for field in msgspec.structs.fields(Kept)}
    faults = [f"unknown field {name}" for name in read if name not in fields]
    faults += [f"{name} is missing" for name, field in fields.items() if field.required and name not in read]
    for name in (name for name in fields if name in read):
        try:
            msgspec.convert(read[name], fields[name].type)
        except ValueError as error:
            faults.append(f"{name}: {error}")
        else:
            faults += [] if _finite(read[name]) else [f"{name}: a number is not finite"]
    return faults


def _finite(value: object) -> bool:
    """JSON as Python reads it has NaN and Infinity, which no bound catches."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else not isinstance(value, float) or isfinite(value)


def write_profile(path: Path, profile: Profile, measured: dict[str, Any]) -> None:
    """Keep one, with how it was measured."""
    fields = {name: getattr(profile, name) for name in profile.__dataclass_fields__}
    kept = Kept(**fields, measured=measured)
    path.write_text(json.dumps(msgspec.to_builtins(kept), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def of_sim(options: dict[str, Any], name: str = "sim") -> Profile:
    """The profile of a sim engine with these engine_options. Raises ConfigError where they are wrong."""
    read = read_options(options)
    return Profile(
        name=name,
        timing=Sim(read.prefill, read.decode_step_ms, read.decode_seq_ms),
        kv_tokens=read.blocks * read.block_size,
        kv_bytes_per_token=read.kv_bytes_per_token,
        block_tokens=read.block_size,
        max_sequences=read.max_num_seqs,
        prefill_at_once=read.prefill_batch,
        source="the sim engine's own formula",
    )
