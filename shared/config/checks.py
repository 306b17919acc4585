"""What values may be: bounds, and the forms of names and URLs. Each check returns what is wrong, or nothing."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

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
