"""A model directory's JSON files, read in the forms in which Hugging Face has written them over the years.

Loads no weights and imports no torch.
"""

import json
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError
from shared.models.known import MARKER

SAMPLING_NAMES: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class ModelFiles:
    """A model directory's small files, read once, with every fault found on the way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.faults: list[str] = []
        config = self._json("config.json")
        self._text_config = config | self._table(config, "text_config")  # of models that see images too
        self._generation = self._json("generation_config.json")
        self._tokenizer = self._json("tokenizer_config.json")
        self._marker = self._json(MARKER)

    def check(self) -> None:
        """Raise what was found so far."""
        if self.faults:
            raise ConfigError(self.faults)

    def needed(self, name: str) -> Path:
        """The path of a file that must be there."""
        path = self.directory / name
        if not path.is_file():
            self.faults.append(f"{self.directory} holds no {name}")
        return path

    def context(self) -> int | None:
        """Positions the model was made for."""
        value = self._text_config.get("max_position_embeddings")
        if value is None and str(self._text_config.get("model_type", "")).startswith("gemma3"):
            return 131_072  # what transformers takes when Gemma 3's config leaves it out
        return value if isinstance(value, int) and value > 0 else None

    def bos_id(self) -> int | None:
        """The token that begins a prompt."""
        value = self._text_config.get("bos_token_id", self._generation.get("bos_token_id"))
        return value if isinstance(value, int) else None

    def eos_ids(self) -> frozenset[int]:
        """Every token that ends a text: generation_config.json's, which is the more complete, or config.json's."""
        value = self._generation.get("eos_token_id", self._text_config.get("eos_token_id"))
        values = value if isinstance(value, list) else [value]
        return frozenset(index for index in values if isinstance(index, int))

    def chat_template(self) -> str:
        """From its own file, or from tokenizer_config.json: a text, or several with names."""
        path = self.directory / "chat_template.jinja"
        return path.read_text(encoding="utf-8") if path.is_file() else self._named_template("default")

    def tool_template(self) -> str:
        """The second template of models that have one for conversations with functions."""
        path = self.directory / "additional_chat_templates" / "tool_use.jinja"
        return path.read_text(encoding="utf-8") if path.is_file() else self._named_template("tool_use")

    def _named_template(self, name: str) -> str:
        template = self._tokenizer.get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get(name)
        elif name != "default":
            return ""
        return template if isinstance(template, str) else ""

    def default_stop(self) -> tuple[str, ...]:
        """Of a directory that Baton has imported."""
        stop = self._marker.get("default_stop", [])
        return tuple(text for text in stop if isinstance(text, str)) if isinstance(stop, list) else ()

    def sampling(self) -> dict[str, float]:
        """What generation_config.json says, and over it what Baton's import says."""
        said = self._generation | self._table(self._marker, "sampling")
        found = {name: said.get(name) for name in SAMPLING_NAMES}
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    def _json(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}  # `needed` says so where it matters
        except (OSError, ValueError) as error:
            self.faults.append(f"{path} cannot be read: {error}")
            return {}
        if not isinstance(content, dict):
            self.faults.append(f"{path} holds no JSON object")
            return {}
        return content

    @staticmethod
    def _table(config: dict[str, Any], name: str) -> dict[str, Any]:
        value = config.get(name)
        return value if isinstance(value, dict) else {}
