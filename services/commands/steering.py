"""`baton scale`, `upgrade` and `explain` as the command line has them: their words, and what they call.

Imports little at the top: a command pays only for what it uses.
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from services.commands.arguments import groups, members, percent, seconds, trial

if TYPE_CHECKING:
    from services.commands.access import Access
    from services.commands.orders import Order


def parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[argparse.ArgumentParser]:
    """Add the commands; returns their parsers."""
    scale = commands.add_parser("scale", help="have so many members or groups of a scenario")
    scale.set_defaults(run=_scale)
    scale.add_argument("--prefill", type=members, metavar="N", help="prefills of each group (as it is)")
    scale.add_argument("--decode", type=members, metavar="N", help="decodes of each group (as it is)")
    scale.add_argument("--groups", type=groups, metavar="N", help="groups (as it is)")
    scale.add_argument("--group", metavar="G", help="change the members of this group only")

    upgrade = commands.add_parser("upgrade", help="run another model or other options, group after group")
    upgrade.set_defaults(run=_upgrade)
    upgrade.add_argument("--model", default="", metavar="PATH_OR_NAME", help="the model from now on")
    upgrade.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="K=V",
        help="of the engine, over those that are; again for more",
    )
    upgrade.add_argument(
        "--canary", type=percent, default=10, metavar="PCT", help="of the requests, for the first group's trial (10)"
    )
    upgrade.add_argument(
        "--trial", type=trial, default=30.0, dest="trial_s", metavar="S", help="how long the trial is (30)"
    )
    upgrade.add_argument("--back", action="store_true", help="go back to the revision before")

    explain = commands.add_parser("explain", help="say what is measured of a scenario, what would be done, and why")
    explain.set_defaults(run=_explain)
    for command in (scale, upgrade, explain):
        command.add_argument("scenario", metavar="SCENARIO")
    for command in (scale, upgrade):
        command.add_argument("--wait", action="store_true", help="return when it is done")
        command.add_argument(
            "--timeout", type=seconds, default=600.0, metavar="S", help="for --wait (600); the order goes on after it"
        )
        command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return [scale, upgrade, explain]


def _scale(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.orders import scale_order  # noqa: PLC0415

    names = ("prefill", "decode", "groups", "group", "dry_run")
    order = scale_order(arguments.scenario, **{name: getattr(arguments, name) for name in names})
    return _give(find(arguments.config, os.environ), order, arguments)


def _upgrade(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.orders import upgrade_order  # noqa: PLC0415

    access = find(arguments.config, os.environ)
    names = ("canary", "trial_s", "back", "dry_run")
    rest = {name: getattr(arguments, name) for name in names}
    return _give(
        access, upgrade_order(access, arguments.scenario, arguments.model, arguments.option, **rest), arguments
    )


def _explain(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from shared.messages import ExplainOrder  # noqa: PLC0415

    return _give(find(arguments.config, os.environ), ExplainOrder(arguments.scenario), arguments)


def _give(access: "Access", order: "Order", arguments: argparse.Namespace) -> int:
    from services.commands.orders import give  # noqa: PLC0415

    waits = getattr(arguments, "wait", False) and not arguments.dry_run

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    told = give(access, order, wait_s=arguments.timeout if waits else None, say=say)
    sys.stdout.write(told.rstrip("\n") + "\n")
    sys.stdout.flush()
    return 0
