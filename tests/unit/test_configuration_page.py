"""docs/configuration.md and the code name the same keys."""

import dataclasses
import re
from pathlib import Path

from shared.config import Config, ModeratorSettings, ScenarioSettings, TenantSettings
from shared.engine.sim_engine.options import SimOptions

NAMED = {"scenario": ScenarioSettings, "moderation": ModeratorSettings, "tenant": TenantSettings}
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def keys() -> list[str]:
    found = []
    for section in dataclasses.fields(Config):
        kind = NAMED.get(section.name) or type(section.default_factory())  # type: ignore[misc]
        name = f"{section.name}.<name>" if section.name in NAMED else section.name
        found += [f"{name}.{key.name}" for key in dataclasses.fields(kind)]
    return found


def named() -> set[str]:
    """Every key on the page; `.decode` after `scenario.<name>.prefill` means the same section."""
    result: set[str] = set()
    section = ""
    for key in re.findall(r"`([^`\s]+)`", PAGE):
        if key.startswith("."):
            result.add(section + key)
        else:
            section = key.rpartition(".")[0]
            result.add(key)
    return result


def test_the_page_names_every_key_of_the_configuration() -> None:
    assert [key for key in keys() if key not in named()] == []


def test_the_page_names_no_key_that_the_configuration_lacks() -> None:
    sections = {key.rpartition(".")[0] for key in keys()}
    strangers = [key for key in named() if key.rpartition(".")[0] in sections and key not in keys()]
    assert [key for key in strangers if not key.endswith("*")] == []


def test_the_page_names_every_option_of_the_engines() -> None:
    torch_options = (Path(__file__).resolve().parents[2] / "shared/engine/torch_engine/options.py").read_text()
    names = re.findall(r"^    (\w+): \w+ = setting\(", torch_options, re.MULTILINE)
    names += [option.name for option in dataclasses.fields(SimOptions) if option.name != "prefill"]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
