"""Run a standby; once it has a role and has closed in order, become that service: same process, same id."""

import os
import sys
from collections.abc import Mapping

from services.standby.service import Standby
from shared.config.reader import variable
from shared.lifecycle import main
from shared.messages import AssignRole, Role


def command(assignment: AssignRole, instance: str, arguments: list[str]) -> list[str]:
    """Return the command line of what the standby becomes; the last of an option given twice counts."""
    identity = ["--id", instance, "--scenario", assignment.scenario, "--group", assignment.group]
    return [sys.executable, "-m", f"services.{assignment.role.value}", *arguments, *identity]


def environment(role: Role, environ: Mapping[str, str]) -> dict[str, str]:
    """Drop the credentials of the roles that it did not become."""
    others = tuple(variable(f"nats.credentials.{other.value}.") for other in Role if other is not role)
    return {name: text for name, text in environ.items() if not name.startswith(others)}


def run() -> int:
    """Live as a standby, then perhaps as something else; the exit code where there is nothing else."""
    standby = Standby()

    def service() -> Standby:
        return standby

    status = main(service)
    if status != 0 or standby.assignment is None:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    argv = command(standby.assignment, standby.id, sys.argv[1:])
    return os.execve(argv[0], argv, environment(standby.assignment.role, os.environ))  # noqa: S606  our own program


if __name__ == "__main__":
    sys.exit(run())
