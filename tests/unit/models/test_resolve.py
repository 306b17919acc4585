"""What a model's directory says, in the forms in which such directories come."""

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import ConfigError
from shared.models import resolve
from shared.models.transcript import TEMPLATE

CONFIG = {"model_type": "llama", "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "my-model"
    made.mkdir()
    write(made, "config.json", CONFIG)
    (made / "tokenizer.json").write_text("{}")
    (made / "model-00001-of-00002.safetensors").write_bytes(b"")
    return made


def write(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(json.dumps(content))


def test_a_directory_is_named_after_itself(directory: Path) -> None:
    spec = resolve(str(directory), "torch", {})
    assert (spec.name, spec.path, spec.tokenizer_path) == ("my-model", directory, directory / "tokenizer.json")
    assert (spec.context, spec.bos_id, spec.eos_ids) == (4096, 1, {2})
    assert (spec.chat_template, spec.default_stop, spec.sampling, spec.clock) == ("", (), {}, False)


def test_max_model_len_narrows_the_context_and_never_widens_it(directory: Path) -> None:
    for limit, context in [(100, 100), (10_000, 4096), (0, 4096)]:
        assert resolve(str(directory), "torch", {"max_model_len": limit}).context == context


def test_generation_config_wins_for_the_end_and_brings_sampling(directory: Path) -> None:
    write(
        directory,
        "generation_config.json",
        {"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20, "do_sample": True},
    )
    spec = resolve(str(directory), "torch", {})
    assert spec.eos_ids == {2, 7}
    assert spec.sampling == {"temperature": 0.6, "top_k": 20}


def test_a_model_that_also_sees_images_has_its_text_settings_inside(directory: Path) -> None:
    write(directory, "config.json", {"eos_token_id": [1, 106], "text_config": {"max_position_embeddings": 77}})
    spec = resolve(str(directory), "torch", {})
    assert (spec.context, spec.eos_ids, spec.bos_id) == (77, {1, 106}, None)


@pytest.mark.parametrize(
    "template", ["T", [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}]]
)
def test_the_template_may_stand_in_the_tokenizers_config(directory: Path, template: object) -> None:
    write(directory, "tokenizer_config.json", {"chat_template": template})
    assert resolve(str(directory), "torch", {}).chat_template == "T"
    (directory / "chat_template.jinja").write_text("file")
    assert resolve(str(directory), "torch", {}).chat_template == "file"


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(str(tmp_path), "torch", {})
    assert [fault.rsplit(" ", 1)[-1] for fault in refused.value.faults][:2] == ["config.json", "tokenizer.json"]
    assert "safetensors" in str(refused.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"max_position_embeddings": "many"}', "\udc80"])
def test_a_config_that_is_none_is_said_with_its_path(directory: Path, content: str) -> None:
    (directory / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve(str(directory), "torch", {})


def test_a_name_that_is_nothing_is_said_with_the_names_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a model that Baton knows \(.*gemma-3-270m.*\) nor a directory"):
        resolve(str(tmp_path / "absent"), "torch", {})


def test_the_sim_engine_needs_no_model_and_speaks_bytes() -> None:
    spec = resolve("gemma-3-270m", "sim", {"emit": "clock", "max_model_len": 99})
    assert (spec.name, spec.path, spec.tokenizer_path, spec.clock, spec.context) == (
        "gemma-3-270m",
        None,
        None,
        True,
        99,
    )
    assert (spec.bos_id, spec.eos_ids) == (256, {257})


def test_the_sim_engine_takes_a_tokenizer(directory: Path) -> None:
    spec = resolve("x", "sim", {"tokenizer": str(directory)})
    assert (spec.path, spec.tokenizer_path, spec.eos_ids) == (None, directory / "tokenizer.json", {2})
    with pytest.raises(ConfigError, match="neither"):
        resolve("x", "sim", {"tokenizer": "absent"})


def test_wrong_options_of_the_sim_engine_are_found_when_the_model_is_resolved() -> None:
    with pytest.raises(ConfigError, match="decode_step"):
        resolve("x", "sim", {"decode_step": 1})


def test_the_transcript_begins_with_bos_once_and_ends_where_the_assistant_speaks() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE)
    turns = [
        {"role": "user", "content": " Hi? "},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Why?"},
    ]
    text = template.render(messages=turns, bos_token="<bos>", add_generation_prompt=True)
    assert text.count("<bos>") == 1
    assert text.startswith("<bos>The following is a conversation")
    assert text.endswith("\nUser: Hi?\nAssistant: Yes.\nUser: Why?\nAssistant:")
    told = template.render(
        messages=[{"role": "system", "content": "Be brief."}, *turns], bos_token="<bos>", add_generation_prompt=False
    )
    assert told.startswith("<bos>Be brief.\n\nUser: ")
    assert told.count("Be brief.") == 1
    assert told.endswith("User: Why?\n")
