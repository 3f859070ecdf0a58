"""What the API decides about commands: which version, whether the payload fits, and what the caller is told. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from busbar.ocpp.actions import csms_actions
from busbar.ocpp.validation import describe, strict_validator
from busbar.ocpp.versions import Version
from services.api.problems import MAX_ERRORS, Problem

MAX_WAIT_SECONDS = 300.0
MAX_TIMEOUT_SECONDS = 6 * 86_400.0
"""Less than the retention of `csms.commands`."""
DEFAULT_WAIT_SECONDS = 30.0
DEFAULT_PARK_SECONDS = 86_400.0
OUTCOME_SLACK_SECONDS = 5.0
"""By how much the outcome of a command that times out may come after its deadline."""

_NAMESPACE = uuid.UUID("0a2f1f0e-6a53-4a0e-9a63-2f3f0f6a7c11")

STATUS_BY_OUTCOME = {
    "answered": 200,
    "error": 200,
    "offline": 409,
    "rejected": 422,
    "disconnected": 502,
    "timeout": 504,
}
"""The station's answer, be it a CALLERROR, is a success of the API; the body tells them apart."""
PENDING_STATUS = 202


@dataclass(frozen=True, slots=True)
class KnownStation:
    """What a command needs to know of its station."""

    station_id: str
    pinned_version: str | None
    last_version: str | None
    """Of its last connection."""
    online: bool


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """How a command is to be carried out, from the query of its request."""

    wait_seconds: float
    """How long the request waits for the outcome."""
    timeout_seconds: float
    """After which time the outcome is decided."""
    park: bool
    priority: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a command, as it was seen on `csms.command-events` or in `router.commands`."""

    command_id: str
    outcome: str
    at_ms: int
    ocpp_version: str = ""
    answer: str = ""
    """JSON text."""
    error_code: str = ""
    error_description: str = ""
    error_details: str = ""
    """JSON text."""


COMMAND_QUERY = frozenset({"wait", "timeout", "park", "priority"})
"""What `read_options` reads."""


def read_options(query: Mapping[str, str]) -> CommandOptions:
    """Read `wait`, `timeout`, `park` and `priority`. Raises `Problem`."""
    park = _flag(query, "park")
    wait = _number(query, "wait", DEFAULT_WAIT_SECONDS, 0.0, MAX_WAIT_SECONDS)
    default_timeout = max(wait, DEFAULT_PARK_SECONDS if park else DEFAULT_WAIT_SECONDS)
    timeout = _number(query, "timeout", default_timeout, 1.0, MAX_TIMEOUT_SECONDS)
    priority = int(_number(query, "priority", 0, -1000, 1000, whole=True))
    return CommandOptions(wait, timeout, park, priority)


def patience_seconds(options: CommandOptions) -> float:
    """How long to wait for the outcome: a caller who waits out the whole timeout gets to know how it ended."""
    if options.wait_seconds >= options.timeout_seconds:
        return options.timeout_seconds + OUTCOME_SLACK_SECONDS
    return options.wait_seconds


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise _query_problem(name, "is neither true nor false")


def _number(
    query: Mapping[str, str], name: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise _query_problem(name, "is not a whole number" if whole else "is not a number of seconds") from None
    if not least <= value <= most:
        raise _query_problem(name, f"is not between {least:g} and {most:g}")
    return value


def _query_problem(name: str, message: str) -> Problem:
    errors = [{"path": f"query.{name}", "message": message}]
    return Problem(422, "invalid-request", "The request is not valid", errors=errors)


def command_version(station: KnownStation) -> Version:
    """The OCPP version that a command to the station is made for.

    That of its connection; for a station that is offline, the version that it is pinned to, else its last one.

    Raises:
        Problem: 409 if there is neither.
    """
    if station.online and station.last_version:
        known = station.last_version
    else:
        known = station.pinned_version or station.last_version or ""
    if known not in set(Version):
        detail = "It has never connected, and no OCPP version is pinned in its settings."
        raise Problem(409, "version-unknown", "The station's OCPP version is not known", detail)
    return Version(known)


@cache
def _actions(version: Version) -> frozenset[str]:
    return frozenset(csms_actions(version))


def check_command(version: Version, action: str, payload: Any) -> None:
    """Hold a payload against the strict schema of the action.

    Raises:
        Problem: 404 for an action that the version does not have, 422 with each error's path for a payload.
    """
    if action not in _actions(version):
        detail = f"OCPP {version} has no such CALL from CSMS to station. It has: {', '.join(csms_actions(version))}."
        raise Problem(404, "unknown-action", "The station does not know this action", detail)
    validator = strict_validator(version, action)
    if validator.is_valid(payload) and not _holds_nul(payload):
        return
    errors = []
    for error in validator.iter_errors(payload):
        path, _, message = describe(version, error).description.partition(" ")
        errors.append({"path": path, "message": message})
        if len(errors) == MAX_ERRORS:
            break
    raise Problem(
        422,
        "invalid-payload",
        "The payload does not fit the action",
        f"{action} of OCPP {version} does not take this payload.",
        errors=errors or [{"path": "$", "message": "holds a NUL character"}],
    )


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def read_payload(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body; an empty body is an empty object. Raises `Problem`."""
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, "not-json", "The body is not JSON", str(error)[:200]) from None
    if not isinstance(value, dict):
        raise Problem(422, "invalid-payload", "The payload is not a JSON object", f"It is a {_json_type(value)}.")
    return value


def _json_type(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]


def command_id_for(idempotency_key: str, requested_by: str, station_id: str, action: str) -> str:
    """The id of a command with an `Idempotency-Key`: the same key again is the same command."""
    name = orjson.dumps([idempotency_key, requested_by, station_id, action]).decode()
    return str(uuid.uuid5(_NAMESPACE, name))


def outcome_members(outcome: Outcome) -> dict[str, Any]:
    """How an outcome reads in a response: `answer` for a CALLRESULT, `error` for all else."""
    members: dict[str, Any] = {"outcome": outcome.outcome, "finished_at": instant(outcome.at_ms)}
    if outcome.outcome == "answered":
        members["answer"] = _json(outcome.answer)
    else:
        members["error"] = {
            "code": outcome.error_code,
            "description": outcome.error_description,
            "details": _json(outcome.error_details) or {},
        }
    return members


def _json(text: str) -> Any:
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def instant(milliseconds: int) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
