"""Every Redis key, as a constant or a typed function. Keys appear nowhere else; docs/protocol.md describes them."""

from typing import Final

FENCE: Final = "baton:fence"
"""Counter of all leases ever taken since the boot number changed."""
BOOT: Final = "baton:boot"
"""Hash: the boot number, and the run id of the Redis process that it was drawn for."""
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
