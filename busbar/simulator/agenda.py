"""What is to happen when: a queue of plain calls, run by whoever tells the time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

Action = Callable[[float], None]
"""Called with the time for which it was planned, not the time at which somebody came round to it."""


class Agenda:
    """Calls in the order of their times; those of one time in the order in which they were planned."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, Action]] = []
        self._planned: dict[str, int] = {}
        self._counter = 0

    def at(self, time: float, label: str, action: Action) -> None:
        """Plan a call. One label stands for one plan: an earlier one of the same label is dropped."""
        self._counter += 1
        self._planned[label] = self._counter
        if time < math.inf:
            heapq.heappush(self._heap, (time, self._counter, label, action))

    def cancel(self, *labels: str) -> None:
        for label in labels:
            self._planned.pop(label, None)

    def due(self) -> float:
        """When the next call is planned; infinite if none is."""
        while self._heap and self._planned.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def run(self, now: float) -> None:
        """Make every call that is due, those included that calls add while they run."""
        while self.due() <= now:
            time, _, label, action = heapq.heappop(self._heap)
            del self._planned[label]
            action(time)
