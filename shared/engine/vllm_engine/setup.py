"""What vLLM is before its first request: how it is started, what its ranks are answered, what it says of itself.

Owns the fingerprint: two engines with equal ones may exchange KV buffers, whatever their tensor parallelism.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.engine import EngineInfo
from shared.engine.torch_engine.weights import identity
from shared.engine.vllm_engine import lora
from shared.engine.vllm_engine.core import Core, prepare
from shared.engine.vllm_engine.draws import unsaid
from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.notes import Plan, Registered
from shared.engine.vllm_engine.options import VllmOptions, read_options
from shared.errors import ConfigError, EngineFailed
from shared.kv.arena import Arena
from shared.models.spec import ModelSpec
from shared.text.matching import Grammars
from shared.text.tokenizer import Tokenizer

CONNECTOR = "BlockFreeConnector"
CONNECTOR_MODULE = "shared.engine.vllm_engine.inside.connector"


class Setup:
    """Of one engine. Raises ConfigError for wrong options, or where vLLM is not there."""

    def __init__(self, spec: ModelSpec, options: Mapping[str, Any], *, sends: bool) -> None:
        self.options: VllmOptions = read_options(options)
        if spec.path is None:
            raise ConfigError([f"engine vllm needs a model's files, and {spec.name} has none"])
        self._spec = spec
        self._directory: Path = spec.path
        self._sends = sends
        prepare(self.options)

    def core(self, notes: str) -> Core:
        """Start vLLM. Blocks from seconds to minutes. Raises ConfigError or EngineFailed."""
        tokenizer = self._spec.tokenizer_path
        return Core(
            self.options,
            self._directory,
            {
                "kv_connector": CONNECTOR,
                "kv_connector_module_path": CONNECTOR_MODULE,
                "kv_role": "kv_both" if self._sends else "kv_consumer",
                "kv_load_failure_policy": "fail",
                "kv_connector_extra_config": {
                    "notes": notes,
                    "owner": os.getpid(),
                    "tokenizer": "" if tokenizer is None else str(tokenizer),
                },
            },
        )

    def plan(self, registrations: list[Registered], arena: Arena, devices: str) -> Plan:
        """What all ranks are answered. Raises ConfigError when they do not fit together."""
        if arena.path is None:
            raise ConfigError(["engine vllm needs Linux: its processes share the staging memory by a memfd"])
        geometry = Geometry(registrations)
        return Plan(arena.path, arena.size, geometry.before, geometry.block_bytes, devices)

    def info(self, registrations: list[Registered], context: int) -> EngineInfo:
        """What is fixed from now on. Raises ConfigError where the options ask for more than there is."""
        geometry = Geometry(registrations)
        blocks, block_tokens = geometry.blocks - 1, geometry.block_tokens  # the first block is vLLM's own
        room = blocks * block_tokens
        if self.options.max_model_len > room:
            fault = f"{self.options.max_model_len} is more than the {room} tokens of its KV cache; make one of them fit"
            raise ConfigError([f"engine_options.max_model_len: {fault}"])
        context = min(context, room)  # vLLM counts its own block too, where it looks for what fits
        return EngineInfo(
            model=self._directory.name,
            fingerprint=self._fingerprint(geometry),
            context=context,
            block_tokens=block_tokens,
            block_bytes=geometry.block_bytes,
            blocks=blocks,
            max_sequences=self.options.max_num_seqs,
            eos_ids=frozenset(token for token in self._spec.eos_ids if token < self._vocabulary()),
        )

    def languages(self, tokenizer: Callable[[], Tokenizer] | None) -> tuple[Grammars | None, int | None]:
        """The model's tokens for constraints, and the one that a text misses least. Takes seconds: use a thread."""
        if tokenizer is None:
            return None, None
        opened, vocabulary = tokenizer(), self._vocabulary()
        return Grammars(opened, vocabulary), unsaid(opened, vocabulary)

    def _vocabulary(self) -> int:
        """Tokens that the model can draw, by its config.json. Raises EngineFailed."""
        config = json.loads((self._directory / "config.json").read_bytes())
        size = config.get("text_config", {}).get("vocab_size", config.get("vocab_size"))
        if not isinstance(size, int):
            raise EngineFailed(f"{self._directory / 'config.json'} does not say vocab_size", fatal=True)
        return size

    def _fingerprint(self, geometry: Geometry) -> str:
        adapter = lora.identity(Path(self.options.lora)) if self.options.lora else ""
        parts = ("vllm 1", identity(self._directory), self.options.quantization, adapter, *geometry.identity)
        text = "\n".join(f"{len(part)} {part}" for part in parts)  # lengths keep two lists from being one text
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
