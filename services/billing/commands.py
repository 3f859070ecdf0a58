"""Commands of billing to stations: records on `csms.commands`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from busbar.avro import encode
from busbar.pricing.jsontext import serialize_json
from busbar.records import Result

SERVICE = "billing"
COMMANDS_TOPIC = "csms.commands"
_NAMESPACE = UUID("6f1d1c39-7a5e-4b8f-9a54-2f0c9f5f2f10")


def make_id(*parts: object) -> str:
    """A UUID that depends on the parts alone, so that a command that is made twice is one command."""
    return str(uuid5(_NAMESPACE, "\0".join(map(str, parts))))


def command(
    command_id: str,
    station_id: str,
    action: str,
    payload: Mapping[str, Any],
    at_ms: int,
    timeout_ms: int,
    *,
    park: bool = False,
) -> Result:
    """A CALL that a station is to carry out.

    Args:
        command_id: As `make_id` makes it.
        payload: By the schema of the station's version; Decimals are written digit for digit.
        at_ms: When it was decided: the time of the event that led to it, or the deadline.
        timeout_ms: Until when the outcome is decided.
        park: Whether to wait for a station that is offline.
    """
    value = {
        "command_id": command_id,
        "station_id": station_id,
        "action": action,
        "payload": serialize_json(payload),
        "requested_by": SERVICE,
        "requested_at": at_ms,
        "deadline_at": at_ms + timeout_ms,
        "park": park,
    }
    return Result(COMMANDS_TOPIC, station_id.encode(), encode("csms.Command", value), timestamp_ms=at_ms)
