"""The life of one command, as a state machine.

    received ─┬─> dispatched ──> sent ──> answered | error | timeout | disconnected
              ├─> parked ─────────^          (the edge reports what happens on the socket)
              └─> offline | rejected
    dispatched ──> undelivered ──> dispatched again, on another connection | parked | offline | timeout

The first terminal stage is the outcome. No command goes twice to a connection that did not hand it back, none goes
out after its deadline, and each has an hour at which it is looked at again (`review_at_ms`) until it has its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from busbar.ocpp.errors import OcppError
from busbar.ocpp.validation import validate_request
from busbar.ocpp.versions import Version
from services.router.events import CommandRequested, Dispatch, Outcome, Stage, StageReported
from services.router.presence import Connection

WAITING_STAGES = frozenset({"received", "parked", "undelivered"})
"""Not on its way to any socket."""


@dataclass(frozen=True, slots=True)
class CommandRules:
    """How long the router waits before it looks again."""

    settle_ms: int = 3_000
    """What may still be under way in the log: reports of an edge that has died, stages of a command that is overdue."""
    review_ms: int = 3_000
    """First look at a command that was dispatched and has not been heard of; then less and less often."""
    longest_review_ms: int = 15_000
    undelivered_wait_ms: int = 5_000
    """How long an undelivered command waits for another connection before its station counts as offline."""
    same_connection_ms: int = 2_000
    """How long before a command goes again to the connection whose edge handed it back unsent."""
    slack_ms: int = 2_000
    """How much later than the deadline the router decides: the edge, which knows more, goes first."""


@dataclass(slots=True)
class Command:
    """A command and where it stands."""

    command_id: str
    partition: int
    station_id: str
    action: str
    payload: str
    """JSON text."""
    requested_by: str
    requested_at_ms: int
    deadline_at_ms: int
    priority: int
    park: bool
    stage: str = "received"
    outcome: str | None = None
    attempts: int = 0
    answer: str = ""
    """JSON text; empty: none."""
    error_code: str = ""
    error_description: str = ""
    error_details: str = ""
    connection_id: str = ""
    edge: str = ""
    ocpp_version: str = ""
    tried: tuple[str, ...] = ()
    """The connections that it was dispatched to and that did not hand it back: on each it may have been sent."""
    handed_back: dict[str, int] = field(default_factory=dict)
    """When each connection last handed it back, by the clock of its edge: the same report again is no news."""
    dispatched_at_ms: int | None = None
    sent_at_ms: int | None = None
    finished_at_ms: int | None = None
    waiting_since_ms: int | None = None
    review_at_ms: int | None = None

    @property
    def urgency(self) -> tuple[int, int, str]:
        """Sorts the commands of a station: higher priority first, then the older."""
        return -self.priority, self.requested_at_ms, self.command_id


def new_command(event: CommandRequested) -> Command:
    """A command as it was requested, before anything is decided."""
    return Command(
        command_id=event.command_id,
        partition=event.partition,
        station_id=event.station_id,
        action=event.action,
        payload=event.payload,
        requested_by=event.requested_by,
        requested_at_ms=event.requested_at_ms,
        deadline_at_ms=event.deadline_at_ms,
        priority=event.priority,
        park=event.park,
    )


def unreadable(payload: str) -> str | None:
    """Why a command's payload can be neither sent nor kept; `None` if it can."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return f"the payload is not JSON: {error}"
    if not isinstance(value, dict):
        return "the payload is not a JSON object"
    return "the payload holds a NUL character" if _holds_nul(value) else None


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


@cache
def _version(ocpp_version: str) -> Version | None:
    return Version(ocpp_version) if ocpp_version in set(Version) else None


def dispatch(command: Command, connection: Connection, now_ms: int, rules: CommandRules) -> list[Outcome]:
    """Hand the command to a connection, or reject it if that station does not know such a CALL."""
    try:
        _check(command, connection)
    except OcppError as error:
        command.ocpp_version = connection.ocpp_version
        return finish(command, "rejected", now_ms, error.code, error.description)
    command.stage = "dispatched"
    command.attempts += 1
    command.tried = (*command.tried, connection.connection_id)
    command.connection_id = connection.connection_id
    command.edge = connection.edge
    command.ocpp_version = connection.ocpp_version
    command.dispatched_at_ms = now_ms
    command.sent_at_ms = None
    command.waiting_since_ms = None
    command.review_at_ms = _next_review(command, now_ms, rules)
    call = Dispatch(
        station_id=command.station_id,
        edge_partition=connection.edge_partition,
        connection_id=connection.connection_id,
        command_id=command.command_id,
        action=command.action,
        payload=command.payload,
        deadline_at_ms=command.deadline_at_ms,
        priority=command.priority,
        at_ms=now_ms,
    )
    return [call, _stage(command, "dispatched", now_ms)]


def _check(command: Command, connection: Connection) -> None:
    version = _version(connection.ocpp_version)
    if version is None:
        raise OcppError("NotSupported", f"the connection speaks {connection.ocpp_version!r}")
    validate_request(version, command.action, orjson.loads(command.payload), strict=True)


def park(command: Command, now_ms: int, review_at_ms: int) -> list[Outcome]:
    """Let the command wait for its station to connect."""
    command.stage = "parked"
    command.waiting_since_ms = now_ms
    command.review_at_ms = review_at_ms
    return [_stage(command, "parked", now_ms)]


def hand_back(command: Command, at_ms: int) -> None:
    """The edge says that the command was not sent on its connection, so it may go there again."""
    command.handed_back[command.connection_id] = at_ms
    command.tried = tuple(item for item in command.tried if item != command.connection_id)


def await_connection(command: Command, now_ms: int, reason: str) -> list[Outcome]:
    """Let a command whose connection has gone wait shortly for another; `reason` if it was the router that noticed."""
    command.stage = "undelivered"
    command.waiting_since_ms = now_ms
    command.review_at_ms = now_ms + 1_000
    return [_stage(command, "undelivered", now_ms, error_description=reason)] if reason else []


def finish(command: Command, outcome: str, now_ms: int, error_code: str = "", description: str = "") -> list[Outcome]:
    """Give the command an outcome that the router itself decides."""
    _close(command, outcome, now_ms)
    command.error_code = error_code
    command.error_description = description
    return [_stage(command, outcome, now_ms, error_code=error_code, error_description=description)]


def record_outcome(command: Command, event: StageReported) -> None:
    """Take the outcome that was reported."""
    _close(command, event.stage, event.at_ms)
    command.answer = event.payload
    command.error_code = event.error_code
    command.error_description = event.error_description
    command.error_details = event.error_details
    if event.connection_id:
        command.connection_id = event.connection_id
        command.edge = event.edge or command.edge
        command.ocpp_version = event.ocpp_version or command.ocpp_version


def record_sent(command: Command, event: StageReported, now_ms: int, rules: CommandRules) -> None:
    """The edge has written the CALL to the socket, even if the router had given that up already."""
    command.stage = "sent"
    command.sent_at_ms = event.at_ms
    if command.waiting_since_ms is not None:
        command.waiting_since_ms = None
        command.review_at_ms = _next_review(command, now_ms, rules)


def record_own(command: Command, event: StageReported) -> None:
    """Read back a stage that the router itself decided.

    In normal running the row knows it already, for both were committed together. When the tables are rebuilt from
    the log it is news, and nothing is to be sent.
    """
    if command.outcome is not None:
        return
    if event.stage == "dispatched" and event.attempt > command.attempts:
        command.stage = "dispatched"
        command.attempts = event.attempt
        command.tried = (*command.tried, event.connection_id)
        command.connection_id = event.connection_id
        command.edge = event.edge
        command.ocpp_version = event.ocpp_version
        command.dispatched_at_ms = event.at_ms
        command.waiting_since_ms = None
    elif event.stage == "undelivered" and event.attempt == command.attempts and command.stage == "dispatched":
        command.stage = "undelivered"
        command.waiting_since_ms = event.at_ms
    elif event.stage == "parked" and event.attempt == command.attempts and command.stage != "sent":
        command.stage = "parked"
        command.waiting_since_ms = event.at_ms


def late(command: Command, event: StageReported) -> Stage | None:
    """The record of a terminal stage that came after the outcome; `None` if it is the outcome itself, once more."""
    if (event.stage, event.connection_id or command.connection_id, event.at_ms) == (
        command.outcome,
        command.connection_id,
        command.finished_at_ms,
    ):
        return None
    return Stage(
        command_id=command.command_id,
        station_id=command.station_id,
        action=command.action,
        stage="late",
        at_ms=event.at_ms,
        attempt=command.attempts,
        connection_id=event.connection_id,
        edge=event.edge,
        ocpp_version=event.ocpp_version,
        payload=event.payload,
        error_code=event.error_code,
        error_description=f"{event.stage}, after the outcome was {command.outcome}",
        error_details=event.error_details,
    )


def review_again(command: Command, now_ms: int, rules: CommandRules) -> None:
    """Nothing to do yet: look again later."""
    command.review_at_ms = _next_review(command, now_ms, rules)


def _next_review(command: Command, now_ms: int, rules: CommandRules) -> int:
    waited = now_ms - (command.dispatched_at_ms or now_ms)
    pause = min(max(waited, rules.review_ms), rules.longest_review_ms)
    return min(now_ms + pause, command.deadline_at_ms + rules.slack_ms)


def _close(command: Command, outcome: str, at_ms: int) -> None:
    command.stage = command.outcome = outcome
    command.finished_at_ms = at_ms
    command.waiting_since_ms = None
    command.review_at_ms = None


def _stage(command: Command, stage: str, now_ms: int, *, error_code: str = "", error_description: str = "") -> Stage:
    return Stage(
        command_id=command.command_id,
        station_id=command.station_id,
        action=command.action,
        stage=stage,
        at_ms=now_ms,
        attempt=command.attempts,
        connection_id=command.connection_id,
        edge=command.edge,
        ocpp_version=command.ocpp_version,
        error_code=error_code,
        error_description=error_description,
    )
