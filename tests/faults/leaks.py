"""What an instance holds that nobody needs any more: invariant I5.

Owns which gauges must be back at nothing, which at what they were, and what may stay: KV connections are kept for the
next push. Asks nobody; it judges the metrics it is given.
"""

from typing import Final

NOTHING: Final = (
    "baton_gateway_in_flight",
    "baton_gateway_held",
    "baton_gateway_streams",
    "baton_gateway_waiting",
    "baton_worker_slots_in_use",
    "baton_worker_streams",
    "baton_worker_tickets",
    "baton_worker_staging_in_use_bytes",
    "baton_worker_orphans",
)
"""0 when nobody asks anything."""
FREE: Final = "baton_worker_blocks_free"
LINKS: Final = "baton_worker_kv_links"
STEADY: Final = {
    "process_open_fds": {"gateway": 0, "prefill": 1, "decode": 2, "other": 0},
    "baton_instance_tasks": {"gateway": 0, "prefill": 0, "decode": 1, "other": 0},
}
"""What they were when idle, and what each KV connection adds."""
SLACK: Final = 8
"""Sockets and tasks of the moment: a scrape, a ping, a lease, what is made at first use. A leak per request is more."""


class Idle:
    """What instances of each role held when they were new."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], float] = {}

    def note(self, metrics: dict[str, float]) -> None:
        """Remember an idle instance; the most that one of its role holds counts."""
        role = role_of(metrics)
        for name in STEADY:
            self._before[role, name] = max(self._before.get((role, name), 0.0), _own(role, name, metrics))
        if FREE in metrics:
            self._before[role, FREE] = metrics[FREE]

    def left(self, instance: str, metrics: dict[str, float]) -> list[str]:
        """Say what is held beyond that; nothing when it is quiet."""
        role = role_of(metrics)
        left = [f"{instance} {name} = {metrics[name]:g}" for name in NOTHING if metrics.get(name)]
        for name in STEADY:
            before, now = self._before.get((role, name)), _own(role, name, metrics)
            if before is not None and now > before + SLACK:
                left.append(f"{instance} {name} = {now:g}, was {before:g}")
        free = self._before.get((role, FREE))
        if free is not None and metrics.get(FREE, free) != free:
            left.append(f"{instance} {FREE} = {metrics[FREE]:g}, was {free:g}")
        return left


def role_of(metrics: dict[str, float]) -> str:
    """Tell the role by what it counts: a standby may have become a worker."""
    if "baton_gateway_in_flight" in metrics:
        return "gateway"
    if FREE in metrics:
        return "decode"
    return "prefill" if "baton_worker_slots" in metrics else "other"


def _own(role: str, name: str, metrics: dict[str, float]) -> float:
    return metrics.get(name, 0.0) - STEADY[name][role] * metrics.get(LINKS, 0.0)
