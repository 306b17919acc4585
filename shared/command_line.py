"""The command line of a service: from options, variables and the file to one configuration, at start and at reload.

Owns which wins: options over variables over the file. Starts nothing.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from shared.config import Config, load
from shared.errors import ConfigError
from shared.instance import WORKERS, new_id
from shared.messages import Role


class CommandLine:
    """`python -m services.X --config FILE [--id ID] [--scenario S] [--group G]`, parsed."""

    def __init__(self, name: str, arguments: Sequence[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=f"One {name} instance of Baton.")
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="TOML; BATON_SECTION__KEY variables win over it"
        )
        parser.add_argument("--id", help="unique among instances; default: role and random letters")
        parser.add_argument("--scenario", help="the scenario to serve; default: the only one")
        parser.add_argument("--group", help="the group to join")
        options = parser.parse_args(arguments)
        self.path: Path | None = options.config
        chosen = {name: getattr(options, name) for name in ("id", "scenario", "group")}
        given = {f"BATON_INSTANCE__{name.upper()}": text for name, text in chosen.items() if text}
        self._environ = {**os.environ, **given}

    def read(self) -> Config:
        """Read the file and the variables as they were at start. Raises ConfigError."""
        return load(self.path, self._environ)


def identified(config: Config, role: Role) -> Config:
    """Settle the instance's id and scenario. Raises ConfigError."""
    faults = []
    scenario = config.instance.scenario
    if role in WORKERS and not scenario:
        if len(config.scenario) == 1:
            scenario = next(iter(config.scenario))
        else:
            faults.append(f"a {role.value} serves one scenario; name it with --scenario")
    if not config.nats.url:
        faults.append("nats.url is empty; set it, or start everything with `baton up`")
    if not config.redis.url:
        faults.append("redis.url is empty; set it, or start everything with `baton up`")
    if faults:
        raise ConfigError(faults)
    identity = dataclasses.replace(config.instance, id=config.instance.id or new_id(role), scenario=scenario)
    return dataclasses.replace(config, instance=identity)
