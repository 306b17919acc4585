"""Connections kept open between pushes.

Owns them while they are idle and closes each as soon as its peer does, so that a dead receiver costs no descriptor and
a push rarely meets a dead connection. Bounded: the one that has been idle longest makes room.
"""

from functools import partial

from shared.kv.link import Link
from shared.messages import Endpoint


class Pool:
    """The idle connections of a sender."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: dict[Link, Endpoint] = {}  # longest idle first
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, endpoint: Endpoint) -> Link | None:
        """The connection to the endpoint that was used last; the caller's now. None when there is none."""
        for link in reversed(self._idle):
            if self._idle[link] == endpoint:
                self._forget(link)
                return link
        return None

    def put(self, endpoint: Endpoint, link: Link) -> None:
        """Keep a healthy connection on which nothing is under way."""
        if self._closed:
            link.close()
            return
        if len(self._idle) >= self._limit:
            self._drop(next(iter(self._idle)))
        self._idle[link] = endpoint
        link.watch(partial(self._drop, link))  # an idle receiver says nothing, so whatever comes is the end

    def close(self) -> None:
        """Close all of them, and from now on whatever is put here. Idempotent."""
        self._closed = True
        for link in list(self._idle):
            self._drop(link)

    def _forget(self, link: Link) -> None:
        link.unwatch()
        del self._idle[link]

    def _drop(self, link: Link) -> None:
        if link in self._idle:
            self._forget(link)
            link.close()
