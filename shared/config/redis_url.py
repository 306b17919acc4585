"""Where Redis is, where its address is no single one: behind Sentinels, or in a Redis Cluster. Pure; opens nothing."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

SENTINEL_PORT: Final = 26379
REDIS_PORT: Final = 6379
SENTINEL_FORM: Final = "redis+sentinel://user:password@host:26379,host:26379/service/0"
CLUSTER_FORM: Final = "redis+cluster://user:password@host:6379,host:6379"
OPTIONS: Final = {"sentinel_user", "sentinel_password", "ssl_ca_certs"}
MOST_NODES: Final = 16

_FORM: Final = re.compile(
    r"(?P<tls>rediss?)\+(?P<kind>sentinel|cluster)://((?P<who>[^/?#]*)@)?(?P<nodes>[^/?#@]+)(?P<path>/[^?#]*)?(\?(?P<options>[^#]*))?"
)
_NODE: Final = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class RedisNodes:
    """Servers to ask where the one is that holds Baton's keys, and how to sign in there."""

    kind: Literal["sentinel", "cluster"]
    nodes: tuple[tuple[str, int], ...]
    service: str = ""  # what the Sentinels call it
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinel_user: str = ""  # of the Sentinels themselves, where they ask
    sentinel_password: str = field(default="", repr=False)
    tls: bool = False
    ssl_ca_certs: str = ""


def is_several(url: str) -> bool:
    """Whether a URL names servers to ask, instead of the one that holds the keys."""
    return url.partition("://")[0].endswith(("+sentinel", "+cluster"))


def parse(url: str) -> RedisNodes:
    """Read such a URL. Raises ValueError whose text is the end of a sentence, and never holds a password."""
    found = _FORM.fullmatch(url)
    if found is None:
        raise ValueError(f"is no URL of the form {SENTINEL_FORM} or {CLUSTER_FORM}")
    sentinel = found["kind"] == "sentinel"
    user, _, password = (found["who"] or "").partition(":")
    options = dict(parse_qsl(found["options"] or "", keep_blank_values=True))
    if set(options) - OPTIONS:  # not echoed: what seems to be one may be part of a password
        raise ValueError(f"has an option that is none of {', '.join(sorted(OPTIONS))}")
    path = [unquote(part) for part in (found["path"] or "").strip("/").split("/") if part]
    service, db = _sentinel_path(path) if sentinel else ("", _cluster_path(path))
    return RedisNodes(
        "sentinel" if sentinel else "cluster",
        tuple(_node(node, SENTINEL_PORT if sentinel else REDIS_PORT) for node in _nodes(found["nodes"])),
        service,
        db,
        unquote(user),
        unquote(password),
        options.get("sentinel_user", ""),
        options.get("sentinel_password", ""),
        tls=found["tls"] == "rediss",
        ssl_ca_certs=options.get("ssl_ca_certs", ""),
    )


def faults(url: str) -> str:
    """Check such a URL; says what is wrong, or nothing."""
    try:
        parse(url)
    except ValueError as error:
        return str(error)
    return ""


def _nodes(text: str) -> list[str]:
    nodes = text.split(",")
    if len(nodes) > MOST_NODES:
        raise ValueError(f"names {len(nodes)} servers; {MOST_NODES} are enough to find the others")
    return nodes


def _node(text: str, port: int) -> tuple[str, int]:
    found = _NODE.fullmatch(text)
    number = int(found["port"] or port) if found else 0
    if found is None or not 0 < number <= 65535:  # noqa: PLR2004  TCP's
        raise ValueError(
            "has a server that is no host:port; separate several by commas, and quote a password's / @ : as %2F %40 %3A"
        )
    return found["six"] or found["host"], number


def _sentinel_path(path: list[str]) -> tuple[str, int]:
    if not path or len(path) > 2 or (len(path) == 2 and not path[1].isdecimal()):  # noqa: PLR2004  service, number
        raise ValueError(f"must name the service that the Sentinels watch: {SENTINEL_FORM}")
    return path[0], int(path[1]) if len(path) == 2 else 0  # noqa: PLR2004


def _cluster_path(path: list[str]) -> int:
    if path not in ([], ["0"]):
        raise ValueError("names a database; a Redis Cluster has only number 0")
    return 0
