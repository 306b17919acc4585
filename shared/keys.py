"""Every Redis key, as a constant or a typed function. Keys appear nowhere else; docs/protocol.md describes them."""

from typing import Final

ROOT: Final = "baton:"
ROOT_IN_CLUSTER: Final = "{baton}:"
"""What every key begins with instead in a Redis Cluster, where only keys of one slot can be changed together."""
FENCE: Final = "baton:fence"
"""Counter of all leases ever taken since the boot number changed."""
BOOT: Final = "baton:boot"
"""Hash: the boot number, and the run id of the Redis process that it was drawn for."""
API_KEYS: Final = "baton:keys"
"""Stream of what happened to API keys. That it exists says that keys were made once, so keys are asked for."""
KEYS_HEARD: Final = "baton:keys:heard"
"""Hash: the last entry of that stream which each gateway has heard."""
EVENTS: Final = "baton:events"
"""List of the last Happenings, the newest first."""
RECORD_TTL_MS: Final = 600_000


def lease(name: str) -> str:
    """Hash of owner and epoch; lives as long as it is renewed."""
    return f"baton:lease:{name}"


def instance(instance_id: str) -> str:
    """MessagePack InstanceRecord of one instance."""
    return f"baton:instance:{instance_id}"


def scenario_map(scenario: str) -> str:
    """MessagePack ScenarioMap of one scenario."""
    return f"baton:map:{scenario}"


def api_key(key_id: str) -> str:
    """Hash of one API key: a digest of its secret, never the secret."""
    return f"baton:key:{key_id}"


def tenant_rates(tenant: str) -> str:
    """Hash: how full the buckets of one tenant are."""
    return f"baton:tenant:{{{tenant}}}:rates"


def tenant_streams(tenant: str) -> str:
    """Sorted set of one tenant's open streams, each until its gateway renews it."""
    return f"baton:tenant:{{{tenant}}}:streams"
