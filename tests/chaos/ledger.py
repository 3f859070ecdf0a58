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
    rank: int = 0
    """Facts in the order in which they were first acknowledged, from 1; 0: not yet."""

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
    """In the order in which they happened, which need not be that of their sending."""

    @property
    def complete(self) -> bool:
        """Whether all of it has been acknowledged."""
        return self.stop_wh is not None and all(event.acknowledged for event in self.events)


@dataclass(slots=True)
class Receipt:
    """A command that arrived at a station."""

    station_id: str
    connection: int
    """Counts the station's connections."""


@dataclass(slots=True)
class Ledger:
    """The book of the whole fleet."""

    versions: dict[str, str] = field(default_factory=dict)
    """Of OCPP, by station."""
    facts: list[Fact] = field(default_factory=list)
    """Each station's in the order in which they happened."""
    transactions: list[Transaction] = field(default_factory=list)
    commands: dict[str, list[Receipt]] = field(default_factory=dict)
    """By command id: where it arrived, each time that it did."""
    accepted_commands: dict[str, str] = field(default_factory=dict)
    """The station of each command that the API has taken, by command id."""
    violations: list[str] = field(default_factory=list)
    """What no station may ever see: a stray or second reply, a CALLERROR to a good CALL, no reply at all."""
    connections: int = 0
    reconnects: int = 0
    acknowledged: int = 0
    """Facts that were acknowledged at least once."""
    slowest_reply_seconds: float = 0.0

    def acknowledge(self, fact: Fact, payload: Any) -> None:
        """A reply to it came in."""
        if not fact.acknowledged:
            self.acknowledged += 1
            fact.rank = self.acknowledged
        fact.replies.append(payload)

    def summary(self) -> str:
        sendings = sum(fact.sendings for fact in self.facts)
        return (
            f"{len(self.facts)} facts in {sendings} sendings, {len(self.transactions)} transactions,"
            f" {self.connections} connections, {len(self.accepted_commands)} commands taken,"
            f" {len(self.commands)} received, slowest reply {self.slowest_reply_seconds:.1f} s,"
            f" {len(self.violations)} violations"
        )


@dataclass(slots=True)
class Sockets:
    """Who believes what to be connected."""

    fleet: dict[str, str]
    """The edge of each station that holds a socket."""
    edges: dict[str, int]
    """How many sockets each edge holds, those in their handshake included; -1 if it does not tell."""
    router: dict[str, str]
    """The edge of each station that the router takes to be online."""

    @property
    def agree(self) -> bool:
        held = dict.fromkeys(self.edges, 0)
        for edge in self.fleet.values():
            held[edge] += 1
        return self.edges == held and self.router == self.fleet


@dataclass(slots=True)
class Ordeal:
    """What an ordeal leaves behind beside the topics and the tables."""

    ledger: Ledger
    connected: Sockets
    """When the last fault is over and every station has probed its connection."""
    left: Sockets
    """When all stations have disconnected."""
