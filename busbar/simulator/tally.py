"""What a fleet has done and what came back: the figures of the summary, and everything that was wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_SHOWN_FAULTS = 20


@dataclass(slots=True)
class Tally:
    """Counts of a whole fleet. Stations share one, for they all run in one thread."""

    sent: Counter[str] = field(default_factory=Counter)
    """CALLs and SENDs by action, resent ones included."""
    answered: int = 0
    """CALLs that were answered in time and as the schema has it."""
    unanswered: int = 0
    """CALLs without an answer within the time limit, or before the connection closed."""
    call_errors: Counter[str] = field(default_factory=Counter)
    """CALLERRORs by code."""
    commands: Counter[str] = field(default_factory=Counter)
    """CALLs of the CSMS by action."""
    refused_commands: Counter[str] = field(default_factory=Counter)
    """Commands that were answered with a CALLERROR, by code."""
    discarded: int = 0
    """Transaction messages given up after their last attempt."""
    connects: int = 0
    connects_failed: int = 0
    boots: Counter[str] = field(default_factory=Counter)
    """BootNotifications by the status that answered them."""
    sessions_started: int = 0
    sessions_ended: int = 0
    authorizations_refused: int = 0
    energy_wh: float = 0.0
    """Energy of the sessions that have ended."""
    wrong: int = 0
    """Answers or commands that break the protocol."""
    faults: list[str] = field(default_factory=list)
    """The first of them, in words."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from a CALL to its answer, on the station's clock."""

    def fault(self, station_id: str, what: str) -> None:
        """Note something that a correct CSMS never does."""
        self.wrong += 1
        if len(self.faults) < MAX_SHOWN_FAULTS:
            self.faults.append(f"{station_id}: {what}")

    @property
    def calls(self) -> int:
        return sum(self.sent.values())

    @property
    def errors(self) -> int:
        return sum(self.call_errors.values())
