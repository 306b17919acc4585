"""What moderation did, for metrics and the audit log. Never a text, never a word that was found.

Owns the metrics of moderation; their labels come from the configuration alone.
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.tenancy import audit

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8)
EXTERNAL: Final = "external"
"""The category label of all that a service flags: its categories are not ours."""


@dataclass(frozen=True, slots=True)
class Who:
    """Whose text it is."""

    request: str
    scenario: str
    tenant: str
    key: str


class Report:
    """One per gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._found = Counter(
            "baton_gateway_moderated",
            "texts in which a moderator found something",
            ["moderator", "category", "action", "text"],
            registry=registry,
        )
        self._failed = Counter(
            "baton_gateway_moderation_failures",
            "judgments that a service did not give, by what that meant",
            ["moderator", "outcome"],
            registry=registry,
        )
        self._judged = Histogram(
            "baton_gateway_moderation_seconds",
            "judgments of services",
            ["moderator"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def found(self, who: Who, moderator: str, *, category: str, label: str, action: str, text: str) -> None:
        """Count and write down a find. `text` is prompt or answer, `label` the category as metrics may have it."""
        self._found.labels(moderator, label, action, text).inc()
        audit.note(
            "content.moderated",
            request=who.request,
            scenario=who.scenario,
            tenant=who.tenant,
            key=who.key,
            moderator=moderator,
            category=category,
            action=action,
            text=text,
        )

    def failed(self, moderator: str, outcome: str) -> None:
        """Count a judgment that did not come."""
        self._failed.labels(moderator, outcome).inc()

    def judged(self, moderator: str, seconds: float) -> None:
        """Note how long a judgment took, or its failure."""
        self._judged.labels(moderator).observe(seconds)
