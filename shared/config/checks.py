"""What values may be: bounds, and the forms of names and URLs. Each check returns what is wrong, or nothing."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from shared.config.redis_url import faults, is_several
from shared.subjects import INSTANCE_NAME, SCENARIO_NAME

MIB = 1 << 20
PORT = (0, 65535)
SECONDS = (0.01, 86_400)
ANY = (1, 1 << 62)
TENANT_NAME: Final = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._@+|-]{0,62}[A-Za-z0-9])?\Z")
"""Wide enough for what identity providers put into a subject; stands inside Redis keys and log lines."""

ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d+)?")


def url(*schemes: str) -> Callable[[str], str]:
    """Make a check for a URL of one of these schemes; an empty one is fine."""

    def check(value: str) -> str:
        if not value:
            return ""
        try:
            parts = urlsplit(value)
            whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        return "" if whole else f"is no URL of the form {schemes[0]}://host:port"

    return check


def urls(*schemes: str) -> Callable[[str], str]:
    """Make a check for a URL, or several of one cluster with commas between. Websockets do not mix with TCP."""
    one = url(*schemes)

    def check(value: str) -> str:
        parts = [part.strip() for part in value.split(",")]
        if len(parts) > 1 and not all(parts):
            return f"has an empty place; write {schemes[0]}://a:port,{schemes[0]}://b:port"
        if problem := next(filter(None, map(one, parts)), ""):
            return problem + (", several of them separated by commas" if len(parts) > 1 else "")
        kinds = {part.partition("://")[0].startswith("ws") for part in parts}
        return "mixes websocket and other URLs" if len(kinds) > 1 else ""

    return check


def redis_url(value: str) -> str:
    """Check the URL of one Redis, of Sentinels or of a Redis Cluster; an empty one is fine."""
    return faults(value) if is_several(value) else url("redis", "rediss")(value)


def address(value: str) -> str:
    """Check a host with or without a port; an empty one is fine."""
    if not value:
        return ""
    try:
        parts = urlsplit(f"//{value}")
        whole = bool(parts.hostname) and parts.port != 0 and ADDRESS.fullmatch(value) is not None
    except ValueError:
        whole = False
    return "" if whole else "is no host, host:port, [v6] or [v6]:port"


def scenario_name(value: str) -> str:
    """Check the name of a scenario."""
    return "" if not value or SCENARIO_NAME.match(value) else "must be lower-case letters, digits and inner hyphens"


def instance_name(value: str) -> str:
    """Check the name of an instance."""
    return "" if not value or INSTANCE_NAME.match(value) else "must be lower-case letters, digits and hyphens"


def prefix(value: str) -> str:
    """Check the first word of all subjects."""
    return "" if value.isascii() and value.isalnum() else "must be one word of letters and digits"


def tenant_name(value: str) -> str:
    """Check the name of a tenant."""
    return "" if TENANT_NAME.match(value) else "must be 1 to 64 letters, digits and inner . _ @ + | -"
