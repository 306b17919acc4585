"""BlockFreeConnector: what vLLM loads into EngineCore and into every rank, for 0.23 and 0.32 alike.

Thin: `scheduling` decides, `rank` moves. Here vLLM's objects are taken apart, and no exception goes further, since one
that does ends EngineCore with every request in it. The exception is `register_kv_caches`, which runs before the first
request: an engine that cannot hand over KV must not start. Works in `start_load_kv` and `get_finished` alone, so that
whole graphs stay and no version has to be told from another.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import vllm
from vllm.distributed import get_pp_group, get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.v1.kv_cache_interface import AttentionSpec, MLAAttentionSpec

from shared.engine.vllm_engine.geometry import Share, share
from shared.engine.vllm_engine.inside.line import DealerLine
from shared.engine.vllm_engine.inside.rank import Rank, Reports
from shared.engine.vllm_engine.inside.scheduling import Moves, Scheduling
from shared.engine.vllm_engine.inside.tensors import kv_tensors
from shared.engine.vllm_engine.inside.watch import die_with
from shared.engine.vllm_engine.notes import Registered
from shared.errors import ConfigError

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


def _contained(otherwise: Callable[[], Any]) -> Callable[[F], F]:
    """A method from which nothing is raised; `otherwise` is then its answer."""

    def wrap(method: F) -> F:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  whatever the method has
            try:
                return method(*args, **kwargs)
            except Exception:
                log.exception("the KV connector failed in %s", method.__name__)
                return otherwise()

        return cast(F, call)

    return wrap


@dataclass
class Metadata(KVConnectorMetadata):  # type: ignore[misc]
    """From EngineCore to the ranks, every step."""

    moves: Moves


class BlockFreeConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Built once in EngineCore and once in every rank; each has the methods of both and uses its own."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:  # noqa: ANN401  vLLM's objects
        super().__init__(vllm_config, role, kv_cache_config)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        die_with(int(extra["owner"]))
        self._specs = _specs(kv_cache_config)
        self._line = DealerLine(extra["notes"])
        self._block_tokens = int(_any(self._specs).block_size)
        self._scheduling = Scheduling(self._block_tokens, self._line.send)
        self._rank = Rank(self._line) if role == KVConnectorRole.WORKER else None

    # In EngineCore

    @_contained(lambda: (0, False))
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:  # noqa: ANN401
        """Tokens that lie ready in the arena. Has no effects: vLLM asks again where it finds no room."""
        return self._scheduling.matched(request, num_computed_tokens)

    @_contained(lambda: None)
    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:  # noqa: ANN401
        """There are blocks for the request; the first call decides on its load."""
        self._scheduling.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> Metadata:  # noqa: ANN401, ARG002
        """What the ranks are to start in this step."""
        return Metadata(self._scheduling.take())

    @_contained(lambda: (False, None))
    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:  # noqa: ANN401
        """Once per request, however it ended; True keeps its blocks until the ranks have gathered them."""
        return self._scheduling.finished(request, request.status.name, block_ids), None

    # In a rank

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Tell the worker what this rank has, and wait for the plan. Raises what makes an engine useless."""
        if self._rank is None:
            return
        _permit_amx()
        config = self._vllm_config
        shares = {layer: _share(config, self._specs.get(layer, _any(self._specs))) for layer in kv_caches}
        tensors = kv_tensors(kv_caches, self._kv_cache_config.num_blocks, self._block_tokens, shares)
        self._rank.register(
            tensors,
            Registered(
                rank=config.parallel_config.rank,
                world=config.parallel_config.world_size,
                stage=get_pp_group().rank_in_group,
                blocks=self._kv_cache_config.num_blocks,
                block_tokens=self._block_tokens,
                parts=[],
                layout=_layout(config, _any(self._specs), next(iter(kv_caches), "")),
            ),
        )

    @_contained(lambda: None)
    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Begin this step's moves, loads and sends."""
        if self._rank is not None and self.has_connector_metadata():
            self._rank.start(self._get_connector_metadata().moves)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads are asynchronous: no layer waits."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """KV is gathered once, when the prompt is through."""

    def wait_for_save(self) -> None:
        """Blocks are held until they are gathered: no step waits."""

    @_contained(lambda: (None, None))
    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:  # noqa: ARG002
        """Requests whose blocks were gathered, and those whose blocks were filled; each once per rank."""
        reports = self._rank.finished() if self._rank is not None else Reports(set(), set())
        return reports.sent or None, reports.received or None

    @_contained(set)
    def get_block_ids_with_load_errors(self) -> set[int]:
        """Of the loads that `get_finished` has just called received."""
        return self._rank.failed_blocks() if self._rank is not None else set()

    @_contained(lambda: None)
    def shutdown(self) -> None:
        """Touch the arena no more."""
        if self._rank is not None:
            self._rank.close()
        self._line.close()


def _permit_amx() -> None:
    """Ask the kernel for the CPU's tile registers, which vLLM's attention uses without asking.

    Otherwise a prompt's first matrix product asks; a decode may never compute a prompt, and its first step would end
    the process by an illegal instruction.
    """
    if torch.cpu._is_amx_tile_supported():  # noqa: SLF001
        torch.cpu._init_amx()  # noqa: SLF001


def _specs(kv_cache_config: Any) -> dict[str, AttentionSpec]:  # noqa: ANN401
    """By layer. Raises ConfigError for models whose state is not the KV of attention alone."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        raise ConfigError([f"a KV hand-off needs one group of KV blocks, and this model has {len(groups)}"])
    spec = groups[0].kv_cache_spec
    specs = dict(getattr(spec, "kv_cache_specs", {})) or dict.fromkeys(groups[0].layer_names, spec)
    for layer, one in specs.items():
        if not isinstance(one, AttentionSpec):
            raise ConfigError([f"layer {layer} keeps {type(one).__name__}, which cannot be handed over"])
        if getattr(one, "num_head_slots", None) is not None:
            raise ConfigError([f"the attention backend packs the KV of layer {layer} in a way of its own"])
    return specs


def _any(specs: dict[str, AttentionSpec]) -> AttentionSpec:
    return next(iter(specs.values()))


def _share(config: Any, spec: AttentionSpec) -> Share:  # noqa: ANN401
    """Of one layer in this rank. Raises ConfigError for parallelism that splits a head's KV."""
    parallel = config.parallel_config
    for kind in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, kind, 1) > 1:
            raise ConfigError([f"a KV hand-off does not know {kind}"])
    ranks, rank = get_tensor_model_parallel_world_size(), get_tensor_model_parallel_rank()
    if isinstance(spec, MLAAttentionSpec):
        return share(1, rank, ranks)
    whole = config.model_config.get_total_num_kv_heads()
    # A layer may have heads of its own number; only where there are fewer than ranks does the count hide it.
    return share(whole if whole < ranks else spec.num_kv_heads * ranks, rank, ranks)


def _layout(config: Any, spec: AttentionSpec, layer: str) -> str:  # noqa: ANN401
    """What the meaning of KV bytes depends on beside their shapes."""
    attention = config.compilation_config.static_forward_context.get(layer)
    found = getattr(attention, "get_attn_backend", lambda: None)()
    backend = type(attention).__name__ if found is None else found.get_name()
    parts = [f"vllm {vllm.__version__}", str(spec.dtype), str(config.cache_config.cache_dtype), backend]
    if backend == "CPU_ATTN":
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa  # noqa: PLC0415  K is packed for it

        isa = _get_attn_isa(config.model_config.dtype, spec.block_size, spec.head_size, config.cache_config.cache_dtype)
        parts.append(f"isa {isa}")
    return ", ".join(parts)
