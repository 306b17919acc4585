"""Opens the engine that a scenario names. Each is imported only when asked for: torch takes seconds and memory."""

from shared.config import ScenarioSettings
from shared.engine import Engine
from shared.errors import ConfigError
from shared.messages import Role
from shared.models.spec import ModelSpec
from shared.text import Tokenizer, open_tokenizer


def open_engine(
    settings: ScenarioSettings, spec: ModelSpec, tokenizer: Tokenizer | None = None, *, role: Role | None = None
) -> Engine:
    """The engine, not started. Raises ConfigError for wrong options, or for an engine that is not there.

    `tokenizer` is the model's, where the caller has it open: that saves a second. `role`: what its worker is; None
    where it is both.
    """
    match settings.engine:
        case "sim":
            from shared.engine.sim_engine.engine import SimEngine  # noqa: PLC0415

            return SimEngine(spec, settings.engine_options, tokenizer)
        case "torch":
            return _torch(settings, spec, tokenizer)
        case "vllm":
            return _vllm(settings, spec, tokenizer, role)
        case other:
            raise ConfigError([f"engine {other!r} is none of torch, vllm, sim"])


def _torch(settings: ScenarioSettings, spec: ModelSpec, tokenizer: Tokenizer | None) -> Engine:
    try:
        from shared.engine.torch_engine.engine import TorchEngine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "shared":
            raise
        raise ConfigError([f"engine torch needs the package {error.name}: pip install 'baton[torch]'"]) from error
    if spec.path is None:
        raise ConfigError([f"engine torch needs a model's files, and {spec.name} has none"])
    parts = (spec.path, settings.engine_options, spec.eos_ids, lambda: tokenizer or open_tokenizer(spec))
    if settings.engine_options.get("tensor_parallel", 1) == 1:
        return TorchEngine(*parts)
    from shared.engine.torch_engine.ranks.engine import RankedEngine  # noqa: PLC0415

    return RankedEngine(*parts)


def _vllm(settings: ScenarioSettings, spec: ModelSpec, tokenizer: Tokenizer | None, role: Role | None) -> Engine:
    from shared.engine.vllm_engine.core import prepare  # noqa: PLC0415
    from shared.engine.vllm_engine.options import read_options  # noqa: PLC0415

    options = read_options(settings.engine_options)
    if role is Role.DECODE and settings.local_prefill_tokens and options.pipeline_parallel_size > 1:
        raise ConfigError(
            ["local_prefill_tokens and engine_options.pipeline_parallel_size do not go together on a decode"]
        )
    prepare(options)  # says what is missing before anything else is imported
    from shared.engine.vllm_engine.engine import VllmEngine  # noqa: PLC0415

    only_decodes = role is Role.DECODE and not settings.local_prefill_tokens
    return VllmEngine(spec, settings.engine_options, lambda: tokenizer or open_tokenizer(spec), sends=not only_decodes)
