"""The commands of one connection: in order of priority, one at a time, each with a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from services.edge.clock import Instant

MAX_QUEUED = 256
MIN_PAST, MAX_PAST = 16, 2 * MAX_QUEUED
REMEMBER_SECONDS = 600.0
"""Commands that are settled are remembered for so long, so that a record which is repeated or late finds them: whoever
takes the router's work over produces all results of its last batch again. At least and at most so many of them."""


@dataclass(slots=True)
class Command:
    """A CALL to the station: queued, or sent and not answered."""

    message_id: str
    command_id: str
    action: str
    payload: str
    """JSON text."""
    priority: int = 0
    deadline_at_ms: int = 0
    """Unix milliseconds; 0: none."""
    expires: float = 0.0
    """By the monotonic clock, once it is sent."""


def command_of(message: Mapping[str, Any]) -> Command:
    """The command that a `csms.OutboundMessage` of kind `call` is."""
    return Command(
        message_id=message["message_id"],
        command_id=message["command_id"] or message["message_id"],
        action=message["action"],
        payload=message["payload"],
        priority=message["priority"],
        deadline_at_ms=message["deadline_at"],
    )


class CommandQueue:
    """Commands for one station. Spec: OCPP-J 1.6 §4.1.1, OCPP 2.0.1 Part 4 §4.1.1: one CALL at a time."""

    __slots__ = ("_order", "_past", "_waiting", "outstanding")

    def __init__(self) -> None:
        self.outstanding: Command | None = None
        """Sent, and not answered."""
        self._waiting: list[tuple[int, int, Command]] = []
        self._order = 0
        self._past: dict[str, tuple[str, float]] = {}
        """By message id: the action while a late answer would be news, else empty; and since when (monotonic)."""

    def knows(self, message_id: str) -> bool:
        """Whether the command is here already: the router may produce its results again after a take-over."""
        if self.outstanding is not None and self.outstanding.message_id == message_id:
            return True
        return message_id in self._past or any(waiting.message_id == message_id for _, _, waiting in self._waiting)

    def add(self, command: Command) -> bool:
        """Queue a command behind those of its priority; `False` if there are too many."""
        if len(self._waiting) >= MAX_QUEUED:
            return False
        self._order += 1
        heappush(self._waiting, (-command.priority, self._order, command))
        return True

    def refuse(self, command: Command, now: Instant) -> None:
        """Remember a command that is handed back: it must not be sent when its record comes again."""
        self._remember(command.message_id, "", now)

    def take_next(self, now: Instant, timeout_seconds: float) -> tuple[Command | None, list[Command]]:
        """The command to send now, if none is out, and those whose deadline has passed in the queue."""
        expired = []
        while self.outstanding is None and self._waiting:
            command = heappop(self._waiting)[2]
            left = timeout_seconds
            if command.deadline_at_ms:
                left = min(left, (command.deadline_at_ms - now.unix_ms) / 1000)
            if left <= 0:
                self._remember(command.message_id, "", now)
                expired.append(command)
                continue
            command.expires = now.monotonic + left
            self.outstanding = command
            return command, expired
        return None, expired

    def answers(self, message_id: str | None) -> bool:
        """Whether this is the id of the command that is out."""
        return self.outstanding is not None and self.outstanding.message_id == message_id

    def finish(self, now: Instant, *, timed_out: bool) -> Command:
        """Take the command that is out, and remember its id."""
        command = self.outstanding
        if command is None:
            raise LookupError("no command is out")
        self.outstanding = None
        self._remember(command.message_id, command.action if timed_out else "", now)
        return command

    def _remember(self, message_id: str, action: str, now: Instant) -> None:
        past = self._past
        while len(past) >= MIN_PAST:
            oldest, (_, since) = next(iter(past.items()))
            if len(past) < MAX_PAST and since > now.monotonic - REMEMBER_SECONDS:
                break
            del past[oldest]
        past[message_id] = action, now.monotonic

    def take_late(self, message_id: str) -> str:
        """The action of a timed-out command that is answered after all, once; else empty."""
        action, since = self._past.get(message_id, ("", 0.0))
        if action:
            self._past[message_id] = "", since
        return action

    def drain(self) -> list[Command]:
        """Empty the queue; returns what was never sent, in order."""
        waiting, self._waiting = sorted(self._waiting, key=lambda entry: entry[:2]), []
        return [command for _, _, command in waiting]
