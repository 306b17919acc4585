"""How large an engine becomes: the KV layout, the number of blocks, the context they allow. Pure but for `identity`."""

from pathlib import Path

from shared.engine import EngineInfo
from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.weights import identity
from shared.errors import ConfigError
from shared.kv.layout import KvLayout

MEBIBYTE = 1 << 20


def kv_layout(directory: Path, architecture: Architecture, options: EngineOptions, dtype: str) -> KvLayout:
    """What a KV buffer of this engine means."""
    return KvLayout(
        model=f"{identity(directory)} {options.quantization}",
        dtype=dtype,
        layers=len(architecture.layers),
        kv_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        block_tokens=options.block_size,
    )


def engine_info(
    name: str, architecture: Architecture, options: EngineOptions, layout: KvLayout, *, eos_ids: frozenset[int]
) -> EngineInfo:
    """What is fixed from now on. Raises ConfigError where the options ask for more than there is."""
    blocks = options.num_blocks or options.kv_cache_mb * MEBIBYTE // layout.block_bytes
    fits = min(architecture.context, blocks * options.block_size)
    context = options.max_model_len or fits
    if blocks * options.block_size < 2:  # noqa: PLR2004  one token of prompt, one generated
        raise ConfigError(
            [f"engine_options.kv_cache_mb: {options.kv_cache_mb} is too little; one block takes {layout.block_bytes} B"]
        )
    if context > fits:
        raise ConfigError(
            [f"engine_options.max_model_len: {context} is more than the {fits} tokens that model and KV cache allow"]
        )
    return EngineInfo(
        model=name,
        fingerprint=layout.fingerprint,
        context=context,
        block_tokens=options.block_size,
        block_bytes=layout.block_bytes,
        blocks=blocks,
        max_sequences=options.max_num_seqs,
        eos_ids=eos_ids or architecture.eos_ids,
    )
