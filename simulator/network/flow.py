"""One transfer on its way over links, and the links. Knows rates; when what happens is the fabric's."""

from collections.abc import Callable


class Link:
    """One direction of a wire. Its flows are in the order in which they started."""

    __slots__ = ("bytes_per_s", "flows", "name", "nbytes")

    def __init__(self, name: str, bytes_per_s: float) -> None:
        self.name = name
        self.bytes_per_s = bytes_per_s
        self.nbytes = 0  # of all flows that ever started on it
        self.flows: dict[Flow, None] = {}


class Flow:
    """Bytes left, at a rate that holds since `since`."""

    __slots__ = ("began", "done", "due", "left", "links", "rate", "since")

    def __init__(self, links: tuple[Link, ...], nbytes: int, began: float, done: Callable[[], None]) -> None:
        self.links = links
        self.left = float(nbytes)
        self.began = began  # of the transfer, its exchange included
        self.done = done
        self.rate = 0.0
        self.since = began
        self.due = float("inf")  # the moment for which a completion is set

    def share(self) -> float:
        """An equal share of its narrowest link."""
        return min(link.bytes_per_s / len(link.flows) for link in self.links)

    def settle(self, now: float) -> None:
        """Take off what went since."""
        self.left = max(0.0, self.left - self.rate * (now - self.since))
        self.since = now
