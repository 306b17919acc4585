"""The `baton` command. Parses, prints, sets the exit status: 0 done, 1 failed, 2 usage.

Imports little at the top: a command pays only for what it uses.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from services.commands import steering
from services.commands.arguments import Misused, count, port, seconds, some, tokens
from shared.errors import BatonError, ConfigError
from simulator.planner.arguments import add as planning
from simulator.profiling.arguments import add as profiling

USAGE = 2


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ConfigError, Misused) as error:
        sys.stderr.write(f"baton: {error}\n")
        return USAGE
    except BatonError as error:
        sys.stderr.write(f"baton: {error}\n")
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    return 1


def _up(arguments: argparse.Namespace) -> int:
    from services.local.plan import Wishes  # noqa: PLC0415
    from services.local.up import up  # noqa: PLC0415

    names = ("config", "port", "dashboard_port", "prefill", "decode", "standby", "gateways", "engine", "model")
    return up(Wishes(**{name: getattr(arguments, name) for name in names}))


def _status(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.inspection import inspect, table  # noqa: PLC0415

    report = inspect(find(arguments.config, os.environ))
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if arguments.json else table(report))
    sys.stdout.flush()
    return 0


def _drain(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.operations import drain  # noqa: PLC0415

    access = find(arguments.config, os.environ)
    sys.stdout.write(drain(access, arguments.id, seconds=arguments.seconds, wait=arguments.wait) + "\n")
    return 0


def _reload(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.reload import reload  # noqa: PLC0415

    lines, well = reload(find(arguments.config, os.environ), arguments.id)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if well else 1


def _keys_create(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.keys import create, unknown_scenarios  # noqa: PLC0415

    access = find(arguments.config, os.environ)
    scenarios = arguments.scenario or []
    kept, key = create(
        access, arguments.tenant, scenarios, expires=arguments.expires, name=arguments.name, wait=arguments.wait
    )
    for name in unknown_scenarios(access, scenarios):
        sys.stderr.write(f"note: there is no scenario {name} now\n")
    sys.stderr.write(f"key {kept.id} of tenant {kept.tenant}; it is shown this once:\n")
    sys.stdout.write(key + "\n")
    sys.stdout.flush()
    return 0


def _keys_list(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.keys import listed, table  # noqa: PLC0415

    entries = listed(find(arguments.config, os.environ))
    sys.stdout.write(json.dumps(entries, indent=2) + "\n" if arguments.json else table(entries))
    sys.stdout.flush()
    return 0


def _keys_revoke(arguments: argparse.Namespace) -> int:
    from services.commands.access import find  # noqa: PLC0415
    from services.commands.keys import revoke  # noqa: PLC0415

    sys.stdout.write(revoke(find(arguments.config, os.environ), arguments.id, wait=arguments.wait) + "\n")
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    from services.commands.access import gateway  # noqa: PLC0415
    from services.commands.chat import Gateway, chat  # noqa: PLC0415

    url = arguments.url or gateway(arguments.config, os.environ)
    return chat(Gateway(url, os.environ.get("BATON_API_KEY", "")), arguments.scenario, arguments.max_tokens)


def _profile(arguments: argparse.Namespace) -> int:
    from simulator.profiling.arguments import again  # noqa: PLC0415

    # a process of its own: the engine may be torch's, which no other command should wait for
    command = [sys.executable, "-m", "simulator.profiling", *again(arguments)]
    return subprocess.run(command, check=False).returncode  # noqa: S603  our own module, words that were parsed


def _plan(arguments: argparse.Namespace) -> int:
    from simulator.planner.command import run  # noqa: PLC0415

    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baton",
        description="Serves large language models with prefill and decode on different instances.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start a whole cluster on this machine; Ctrl-C stops it")
    up.set_defaults(run=_up)
    up.add_argument("--port", type=port, help="of the gateway (8000)")
    up.add_argument("--dashboard-port", type=port, help="of the monitor (8010)")
    up.add_argument("--prefill", type=count, metavar="N", help="prefill workers of each scenario (1)")
    up.add_argument("--decode", type=count, metavar="N", help="decode workers of each scenario (1)")
    up.add_argument("--standby", type=count, metavar="N", default=1, help="instances kept ready for any role (1)")
    up.add_argument("--gateways", type=some, metavar="N", default=1, help="gateway processes, all on the one port (1)")
    up.add_argument("--engine", choices=("torch", "vllm", "sim"), help="what runs the model of each scenario (torch)")
    up.add_argument("--model", metavar="PATH_OR_NAME", help="the model of each scenario (gemma-3-270m)")

    status = commands.add_parser("status", help="show instances, their states and the map")
    status.set_defaults(run=_status)
    status.add_argument("--json", action="store_true", help="for programs")

    chat = commands.add_parser("chat", help="talk to the model")
    chat.set_defaults(run=_chat)
    chat.add_argument("--scenario", metavar="S", help="whom to talk to (the first one served)")
    chat.add_argument("--max-tokens", type=tokens, metavar="N", help="the longest answer wanted")
    chat.add_argument("--url", help="a gateway, like http://127.0.0.1:8000/v1 (the local cluster's)")

    drain = commands.add_parser("drain", help="let an instance finish what it holds, then leave")
    drain.set_defaults(run=_drain)
    drain.add_argument("id", metavar="ID")
    drain.add_argument("--wait", action="store_true", help="return when it has left")
    drain.add_argument("--seconds", type=seconds, help="for what it holds (as configured: fleet.drain_s)")

    again = commands.add_parser("reload", help="have instances read their configuration again, as SIGHUP does")
    again.set_defaults(run=_reload)
    again.add_argument("id", metavar="ID", nargs="?", help="one instance (all)")

    plan = commands.add_parser("plan", help="find the cheapest fleet for a traffic and its objectives, by simulation")
    plan.set_defaults(run=_plan)
    planning(plan)

    profile = commands.add_parser("profile", help="measure an engine for the simulator and `baton plan`")
    profile.set_defaults(run=_profile)
    profiling(profile)

    for command in (up, status, chat, drain, again, profile, *steering.parsers(commands), *_keys_parsers(commands)):
        command.add_argument(
            "--config", type=Path, metavar="FILE", help="TOML; BATON_SECTION__KEY variables win over it"
        )
    return parser


def _keys_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[argparse.ArgumentParser]:
    keys = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = keys.add_parser("create", help="make a key and print it, this once")
    create.set_defaults(run=_keys_create)
    create.add_argument("--tenant", required=True, metavar="T", help="whom its use counts for")
    create.add_argument("--scenario", action="append", metavar="S", help="that it may use; again for more (all)")
    create.add_argument("--expires", metavar="TIME", help="how long it is good, like 12h or 30d (for ever)")
    create.add_argument("--name", default="", metavar="N", help="to know it by")
    lists = keys.add_parser("list", help="show every key, without its secret")
    lists.set_defaults(run=_keys_list)
    lists.add_argument("--json", action="store_true", help="for programs")
    revoke = keys.add_parser("revoke", help="make a key worthless, for ever")
    revoke.set_defaults(run=_keys_revoke)
    revoke.add_argument("id", metavar="ID")
    for command in (create, revoke):
        command.add_argument("--wait", action="store_true", help="return when every gateway has heard of it")
    return [create, lists, revoke]


if __name__ == "__main__":
    sys.exit(main())
