"""Noticing that an edge has fallen silent, by a clock that runs only while somebody listens."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from services.router.events import EdgeSilent
from services.router.presence import Edge


class EdgeWatch:
    """Remembers when each edge was last seen to say something new.

    An edge is judged by the router that reads its partition of `csms.edges`, and only after it has read it for the
    whole time without a word of that edge: a router that starts, takes a partition over or was stopped for a while
    has not listened, and blames nobody.

    Args:
        silent_ms: How long without a word makes an edge silent.
        pause_ms: A gap between two looks that means that this process itself was not running.
    """

    def __init__(self, silent_ms: int = 15_000, pause_ms: int = 5_000) -> None:
        self._silent_ms = silent_ms
        self._pause_ms = pause_ms
        self._looked_at_ms = 0
        self._heard: dict[str, tuple[tuple[str, int], int]] = {}
        """Per edge: its instance and last sign of life, and when that was first noticed here."""

    def look(self, edges: Iterable[Edge], partitions: Collection[int], now_ms: int) -> list[EdgeSilent]:
        """The edges of these partitions that have fallen silent."""
        if not 0 <= now_ms - self._looked_at_ms <= self._pause_ms:
            self._heard.clear()
        self._looked_at_ms = now_ms
        before, self._heard = self._heard, {}
        silent = []
        for edge in edges:
            if edge.partition not in partitions or edge.silent or edge.event == "stopped":
                continue
            sign = edge.edge_instance, edge.last_seen_ms
            known = before.get(edge.edge)
            since = known[1] if known is not None and known[0] == sign else now_ms
            self._heard[edge.edge] = sign, since
            if now_ms - since >= self._silent_ms:
                silent.append(EdgeSilent(edge.edge, edge.edge_instance, edge.last_seen_ms, edge.partition))
        return silent
