"""Moderators: what watches over prompts and answers. A scenario names those that watch over it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.config.checks import SECONDS, url
from shared.config.reader import setting

_CATEGORY: Final = re.compile(r"^[a-z0-9](?:[a-z0-9_/-]{0,62}[a-z0-9])?\Z")
_MODERATOR: Final = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z")


def category_name(value: str) -> str:
    """Check the name of a category: it goes into errors and metrics."""
    return "" if _CATEGORY.match(value) else "must be lower-case letters, digits and inner '-', '_' or '/'"


def moderator_name(value: str) -> str:
    """Check the name of a moderator."""
    return "" if _MODERATOR.match(value) else "must be lower-case letters, digits and inner hyphens"


@dataclass(frozen=True)
class ModeratorSettings:
    """One moderator: `rules` looks for words and patterns, `http` asks a service. docs/moderation.md says how."""

    kind: str = setting("rules", choices=("rules", "http"))
    action: str = setting("block", choices=("block", "flag"))  # flag: counted and logged, nothing else
    # rules
    words: dict[str, str] = field(default_factory=dict, metadata={"check": category_name})  # category: file
    patterns: dict[str, str] = field(default_factory=dict, metadata={"check": category_name})  # category: file
    ignore_case: bool = setting(True)
    ignore_accents: bool = setting(False)
    whole_words: bool = setting(True)  # of word files: "ass" is not found in "class"
    window: int = setting(256, between=(8, 4096))  # characters within which an unbounded pattern is surely caught
    # http
    url: str = setting("", check=url("https", "http"), secret=True)  # may hold a token
    api_key: str = setting("", secret=True)
    model: str = setting("")
    timeout_s: float = setting(2.0, between=SECONDS)  # of one judgment, waiting for a free place included
    max_concurrent: int = setting(16, between=(1, 4096))
    on_error: str = setting("refuse", choices=("refuse", "allow"))
    stream_chars: int = setting(400, between=(1, 100_000))  # of an answer, judged at once
    overlap_chars: int = setting(100, between=(0, 100_000))  # of the text before, judged once more with them


def moderation_faults(
    moderators: dict[str, ModeratorSettings], uses: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
) -> list[str]:
    """Say what no key alone shows. `uses`: for each scenario the moderators of its prompts and of its answers."""
    faults = [fault for name, settings in moderators.items() for fault in _faults(f"moderation.{name}", settings)]
    for scenario, lists in uses.items():
        for key, names in zip(("moderate_prompt", "moderate_answer"), lists, strict=True):
            faults += [
                f"scenario.{scenario}.{key}: there is no [moderation.{name}]"
                for name in names
                if name not in moderators
            ]
    return faults


def _faults(where: str, settings: ModeratorSettings) -> list[str]:
    files = {f"{where}.words.{name}": file for name, file in settings.words.items()}
    files |= {f"{where}.patterns.{name}": file for name, file in settings.patterns.items()}
    faults = []
    if settings.kind == "rules" and not files:
        faults.append(f"{where} has no rules; give it {where}.words or {where}.patterns")
    if settings.kind == "rules" and settings.url:
        faults.append(f'{where}.url belongs to kind = "http"')
    if settings.kind == "http" and not settings.url:
        faults.append(f"{where}.url is missing; set it to the service that judges")
    if settings.kind == "http" and files:
        faults.append(f'{where}.words and {where}.patterns belong to kind = "rules"')
    faults += [f"{key}: '{file}' is no absolute path" for key, file in files.items() if not Path(file).is_absolute()]
    return faults
