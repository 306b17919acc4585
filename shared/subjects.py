"""Every NATS subject, as a typed function. Subjects appear nowhere else.

A scenario's name has no underscore and no dot, so the segments that begin with an underscore never clash with one.
"""

import re
from typing import Final

PREFIX: Final = "baton"
GATEWAYS: Final = "gateways"
"""Queue group of the gateways on `requests`: one of them takes each client request and acknowledges at once."""

SCENARIO_NAME: Final = re.compile(r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z")
INSTANCE_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}\Z")


class Subjects:
    """The subjects under one prefix (`baton` unless configured)."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix

    def requests(self, scenario: str) -> str:
        """Client to gateways: a request, with a reply inbox for its stream."""
        return f"{self.prefix}.{scenario}.requests"

    def requests_cancel(self, scenario: str) -> str:
        """Client to every gateway: the id or the inbox of a request that it wants no more."""
        return f"{self.prefix}.{scenario}.requests.cancel"

    def prefill(self, scenario: str, instance: str) -> str:
        """Gateway to one prefill, or to a decode that computes it itself: PrefillRequest, answered at once."""
        return f"{self.prefix}.{scenario}.prefill.{instance}"

    def decode(self, scenario: str, instance: str) -> str:
        """Prefill to one decode worker: KvReady, answered KvGrant or Rejected."""
        return f"{self.prefix}.{scenario}.decode.{instance}"

    def kv_ready(self, scenario: str) -> str:
        """Prefill to whoever watches: KvReadyEvent, one per prompt that is ready."""
        return f"{self.prefix}.{scenario}.kv.ready"

    def cancel(self, scenario: str) -> str:
        """Gateway to every worker of a scenario: Cancel."""
        return f"{self.prefix}.{scenario}.cancel"

    def claim(self, scenario: str) -> str:
        """Gateway to every worker of a scenario: Claim, answered with what each has of the streams."""
        return f"{self.prefix}.{scenario}.claim"

    def map(self, scenario: str) -> str:
        """Monitor to everyone: ScenarioMap, the whole map of one scenario."""
        return f"{self.prefix}.{scenario}.map"

    def status(self, scenario: str, instance: str = "*") -> str:
        """Worker to everyone: Status, at each heartbeat and whenever a slot comes free. `*` hears all workers."""
        return f"{self.prefix}.{scenario}.status.{instance}"

    def fleet_status(self, instance: str = "*") -> str:
        """Gateway, monitor or standby to everyone: Status of an instance outside the scenarios."""
        return f"{self.prefix}._fleet.status.{instance}"

    def links(self, scenario: str, instance: str = "*") -> str:
        """Prefill to the monitor: Links, which decodes it can push to."""
        return f"{self.prefix}.{scenario}.links.{instance}"

    def traffic(self, scenario: str, gateway: str = "*") -> str:
        """Gateway to the monitor: Traffic, a scenario's requests as it sees them."""
        return f"{self.prefix}.{scenario}.traffic.{gateway}"

    def orders(self) -> str:
        """Operator to whichever monitor leads: ScaleOrder, UpgradeOrder or ExplainOrder, answered Told or Rejected."""
        return f"{self.prefix}._orders"

    def frames(self, gateway: str) -> str:
        """Worker to one gateway: Frame and HandedOff, in order per worker."""
        return f"{self.prefix}._frames.{gateway}"

    def control(self, instance: str) -> str:
        """Monitor or operator to one instance: AssignRole or Drain, answered Done or Rejected."""
        return f"{self.prefix}._control.{instance}"

    def presence(self, instance: str = "*") -> str:
        """Anybody to one instance, which listens and never answers: NATS says at once when nobody listens."""
        return f"{self.prefix}._presence.{instance}"

    def pulse(self) -> str:
        """Leading monitor to everyone: Pulse, only while its own lease is confirmed in Redis."""
        return f"{self.prefix}._pulse"
