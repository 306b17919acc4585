"""From the name in a scenario's configuration to its ModelSpec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shared.engine.sim_engine.options import read_options
from shared.errors import ConfigError
from shared.models.files import ModelFiles
from shared.models.known import KNOWN, ensure
from shared.models.spec import BYTE_BOS, BYTE_EOS, ModelSpec

SIM_TEMPLATE: Final = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def resolve(model: str, engine: str, engine_options: Mapping[str, Any]) -> ModelSpec:
    """What `model` names: a directory, or a model that Baton knows, imported first if need be.

    Blocks while importing, up to a minute: not for the event loop. Raises ConfigError with every fault found.
    """
    if engine == "sim":
        return _simulated(model, engine_options)
    directory = find(model)
    return _read(directory, model if model in KNOWN else directory.name, engine_options)


def find(model: str) -> Path:
    """The directory of a model. Raises ConfigError when there is none."""
    if model in KNOWN:
        return ensure(model)
    directory = Path(model).expanduser()
    if not directory.is_dir():
        known = ", ".join(sorted(KNOWN))
        raise ConfigError(
            [f"model {model!r} is neither a model that Baton knows ({known}) nor a directory that exists"]
        )
    return directory.resolve()


def _simulated(model: str, engine_options: Mapping[str, Any]) -> ModelSpec:
    options = read_options(engine_options)
    clock = options.emit == "clock"
    if not options.tokenizer:
        eos = frozenset({BYTE_EOS})
        return ModelSpec(model, None, options.context, BYTE_BOS, eos, SIM_TEMPLATE, None, clock=clock)
    directory = find(options.tokenizer)
    files = ModelFiles(directory)
    path = files.needed("tokenizer.json")
    files.check()
    return ModelSpec(
        name=model,
        path=None,
        context=options.context,
        bos_id=files.bos_id(),
        eos_ids=files.eos_ids(),
        chat_template=files.chat_template(),
        tool_template=files.tool_template(),
        tokenizer_path=path,
        clock=clock,
    )


def _read(directory: Path, name: str, engine_options: Mapping[str, Any]) -> ModelSpec:
    files = ModelFiles(directory)
    files.needed("config.json")
    tokenizer = files.needed("tokenizer.json")
    if not any(directory.glob("*.safetensors")):
        files.faults.append(f"{directory} holds no *.safetensors file")
    context = files.context()
    if context is None and not files.faults:
        files.faults.append(f"{directory / 'config.json'} does not say max_position_embeddings")
    files.check()
    limit = engine_options.get("max_model_len")
    return ModelSpec(
        name=name,
        path=directory,
        context=min(context or 0, limit) if isinstance(limit, int) and limit > 0 else context or 0,
        bos_id=files.bos_id(),
        eos_ids=files.eos_ids(),
        chat_template=files.chat_template(),
        tool_template=files.tool_template(),
        tokenizer_path=tokenizer,
        default_stop=files.default_stop(),
        sampling=files.sampling(),
    )
