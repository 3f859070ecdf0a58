"""What a fleet knows of itself: what it sent, what was acknowledged, what came back. Nothing here is Busbar's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Fact:
    """One CALL that a station must get across, however often it has to be sent."""

    station_id: str
    action: str
    payload: dict[str, Any]
    sendings: int = 0
    replies: list[Any] = field(default_factory=list)
    """Payloads of the CALLRESULTs, one per sending that was answered."""

    @property
    def acknowledged(self) -> bool:
        return bool(self.replies)


@dataclass(slots=True)
class Transaction:
    """A transaction as the station lived it. Registers are in Wh."""

    station_id: str
    version: str
    number: int
    start_wh: int
    transaction_id: str = ""
    """The station's own in 2.x; what StartTransaction was answered with in 1.6."""
    stop_wh: int | None = None
    started_at: str = ""
    events: list[Fact] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all of it has been acknowledged."""
        return self.stop_wh is not None and all(event.acknowledged for event in self.events)


@dataclass(slots=True)
class Ledger:
    """The book of the whole fleet."""

    facts: list[Fact] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    """Per command id, the stations' connections that received it."""
    accepted_commands: list[str] = field(default_factory=list)
    """Ids of the commands that the API has taken."""
    violations: list[str] = field(default_factory=list)
    """What no station may ever see: a stray or second reply, a CALLERROR to a good CALL."""
    connections: int = 0
    reconnects: int = 0
    slowest_reply_seconds: float = 0.0

    def summary(self) -> str:
        sendings = sum(fact.sendings for fact in self.facts)
        return (
            f"{len(self.facts)} facts in {sendings} sendings, {len(self.transactions)} transactions,"
            f" {self.connections} connections, {len(self.accepted_commands)} commands taken,"
            f" {len(self.commands)} received, slowest reply {self.slowest_reply_seconds:.1f} s,"
            f" {len(self.violations)} violations"
        )
