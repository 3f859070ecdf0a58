"""Whether the way through Kafka works: proven by markers that the edge sends to itself (rule 9).

A consumer whose broker is away raises nothing and returns nothing, so silence proves nothing. A marker that comes back
proves all of it: producer, broker, partition and consumer.
"""

from __future__ import annotations


class KafkaPath:
    """The state of the way through Kafka. Times are monotonic seconds.

    Args:
        grace_seconds: How long no marker may come back before Kafka counts as away.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._proven_at: float | None = None
        self._down = True

    @property
    def is_down(self) -> bool:
        """Whether upgrades are refused: Kafka is away, or was never reached yet."""
        return self._down

    @property
    def was_up(self) -> bool:
        """Whether it has ever been proven."""
        return self._proven_at is not None

    def prove(self, now: float) -> bool:
        """A marker came back. Returns whether that ends an outage."""
        self._proven_at = now
        was_down, self._down = self._down, False
        return was_down

    def check(self, now: float) -> bool:
        """Look at the clock. Returns whether an outage begins."""
        if self._down or self.age(now) <= self._grace_seconds:
            return False
        self._down = True
        return True

    def age(self, now: float) -> float:
        """Seconds since a marker last came back; 0.0 before the first."""
        return 0.0 if self._proven_at is None else now - self._proven_at

    def problem(self, now: float) -> str | None:
        """For readiness: what is wrong, if anything is."""
        if self._proven_at is None:
            return "Kafka has not been reached yet"
        if self._down or self.age(now) > self._grace_seconds:
            return f"no marker record has come back from Kafka for {self.age(now):.0f} s"
        return None
