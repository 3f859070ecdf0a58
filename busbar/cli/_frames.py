"""A station's traffic as a person reads it: each record that has to do with the station becomes a line. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import orjson

from busbar.avro import InvalidAvro, decode, decode_call
from busbar.avro.readable import instant
from busbar.records import Record

SECRET_NAMES = frozenset({"AuthorizationKey", "BasicAuthPassword"})
"""Configuration keys and variables whose values are passwords."""
HIDDEN = "********"

MALFORMED, CONNECTIONS = "ocpp.malformed", "csms.connections"
OUTBOUND, COMMAND_EVENTS = "csms.outbound", "csms.command-events"
OTHER_TOPICS = (MALFORMED, CONNECTIONS, OUTBOUND, COMMAND_EVENTS)
"""Where a station's traffic is, beside the topics of its actions."""

FROM_STATION, TO_STATION, NEITHER = "station", "csms", ""
_ARROWS = {FROM_STATION: "→", TO_STATION: "←", NEITHER: "·"}
_COLOURS = {"CALL": "cyan", "CALLRESULT": "green", "CALLERROR": "red", "MALFORMED": "red", "COMMAND": "yellow"}
_STAGES_OF_OTHERS = frozenset({"dispatched", "answered", "error"})
"""Told by the frame itself: the call on its way, or the answer."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a frame, or something that happened to the connection or a command."""

    at_ms: int
    sender: str
    """`station`, `csms`, or empty for what is not a frame."""
    kind: str
    """CALL, CALLRESULT, CALLERROR, SEND, MALFORMED, CONNECTION or COMMAND."""
    action: str
    message_id: str
    content: Any
    """The payload; for what is not a frame, a sentence."""
    connection_id: str

    @property
    def order(self) -> tuple[int, int]:
        """What asks goes before what answers, where both bear the same millisecond."""
        return self.at_ms, 0 if self.kind in ("CONNECTION", "CALL", "SEND", "MALFORMED") else 1


def read_line(record: Record, station_id: str) -> Line | None:
    """The line of a record; `None` if it is about another station, or says nothing that another line does not."""
    try:
        if record.topic.startswith("ocpp.v"):
            return _call(record, station_id)
        _, value = decode(record.value or b"")
    except InvalidAvro as error:
        return Line(record.timestamp_ms, NEITHER, "MALFORMED", record.topic, "", f"undecodable: {error}", "")
    match record.topic:
        case "ocpp.malformed":
            return _malformed(value, station_id)
        case "csms.connections":
            return _connection(value, station_id)
        case "csms.outbound":
            return _outbound(record, value, station_id)
        case "csms.command-events":
            return _command(value, station_id)
        case _:
            return None


def _call(record: Record, station_id: str) -> Line | None:
    call = decode_call(record.value or b"")
    if call.station_id != station_id:
        return None
    kind = "SEND" if call.action == "NotifyPeriodicEventStream" else "CALL"
    return Line(call.received_at_ms, FROM_STATION, kind, call.action, call.message_id, call.payload, call.connection_id)


def _malformed(value: Mapping[str, Any], station_id: str) -> Line | None:
    meta = value["meta"]
    if meta["station_id"] != station_id:
        return None
    what = f"{value['error_code']}: {value['error_description']}   {value['frame']}"
    return Line(
        meta["received_at"], FROM_STATION, "MALFORMED", value["action"], meta["message_id"], what, meta["connection_id"]
    )


def _connection(value: Mapping[str, Any], station_id: str) -> Line | None:
    if value["station_id"] != station_id:
        return None
    if value["event"] == "connected":
        what = f"connected to {value['edge']} from {value['remote_address']}, {value['subprotocol']}"
    else:
        what = f"disconnected from {value['edge']}, {value['close_code']} {value['reason']}".rstrip()
    return Line(value["at"], NEITHER, "CONNECTION", "", "", what, value["connection_id"])


def _outbound(record: Record, value: Mapping[str, Any], station_id: str) -> Line | None:
    if value["station_id"] != station_id or value["kind"] == "marker":
        return None
    at_ms, action, message_id = record.timestamp_ms, value["action"], value["message_id"]
    connection_id = value["connection_id"]
    match value["kind"]:
        case "result":
            return Line(
                at_ms, TO_STATION, "CALLRESULT", action, message_id, parse_json(value["payload"]), connection_id
            )
        case "error":
            return Line(at_ms, TO_STATION, "CALLERROR", action, message_id, _error(value), connection_id)
        case "call":
            return Line(at_ms, TO_STATION, "CALL", action, message_id, parse_json(value["payload"]), connection_id)
        case _:
            what = f"told to close: {value['close_code']} {value['error_description']}"
            return Line(at_ms, NEITHER, "CONNECTION", "", "", what, connection_id)


def _command(value: Mapping[str, Any], station_id: str) -> Line | None:
    if value["station_id"] != station_id:
        return None
    at_ms, action, command_id, stage = value["at"], value["action"], value["command_id"], value["stage"]
    connection_id = value["connection_id"]
    if value["source"] == "edge" and stage == "answered":
        return Line(at_ms, FROM_STATION, "CALLRESULT", action, command_id, parse_json(value["payload"]), connection_id)
    if value["source"] == "edge" and stage == "error":
        return Line(at_ms, FROM_STATION, "CALLERROR", action, command_id, _error(value), connection_id)
    if stage in _STAGES_OF_OTHERS:
        return None
    why = " ".join(filter(None, (value["error_code"], value["error_description"])))
    return Line(at_ms, NEITHER, "COMMAND", action, command_id, f"{stage} {why}".rstrip(), connection_id)


def _error(value: Mapping[str, Any]) -> dict[str, Any]:
    error = {"code": value["error_code"], "description": value["error_description"]}
    details = parse_json(value["error_details"])
    return {**error, "details": details} if details else error


def parse_json(text: str) -> Any:
    """JSON text as a value; text that is none stays text."""
    try:
        return orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return text


def without_secrets(value: Any) -> Any:
    """The same with the values of passwords hidden, as ChangeConfiguration and SetVariables carry them."""
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = value.get("key") in SECRET_NAMES or _variable_name(value) in SECRET_NAMES
    return {
        name: HIDDEN
        if (named and name in ("value", "attributeValue")) or name in ("basicAuthPassword", "apnPassword")
        else without_secrets(item)
        for name, item in value.items()
    }


def _variable_name(value: Mapping[str, Any]) -> Any:
    variable = value.get("variable")
    return variable.get("name") if isinstance(variable, dict) else None


def text_line(line: Line, width: int | None = None) -> str:
    """One line for people: the time, who, what, and the payload as compact JSON, cut to the width if there is one."""
    clock = instant(line.at_ms)[11:23]
    content = line.content if isinstance(line.content, str) else _compact(without_secrets(line.content))
    kind = click.style(f"{line.kind:<10}", fg=_COLOURS.get(line.kind))
    head = f"{clock} {_ARROWS[line.sender]} {kind} {line.action}"
    plain = f"{clock} {_ARROWS[line.sender]} {line.kind:<10} {line.action}"
    tail = f" {line.message_id}" if line.message_id else ""
    content = content.replace("\n", "\\n")
    if width is not None and len(plain) + len(tail) + 1 + len(content) > width:
        content = content[: max(0, width - len(plain) - len(tail) - 2)] + "…"
    return f"{head} {content}{click.style(tail, dim=True)}"


def json_line(line: Line) -> str:
    """One line for programs."""
    return json.dumps(
        {
            "at": instant(line.at_ms),
            "from": line.sender,
            "kind": line.kind,
            "action": line.action,
            "message_id": line.message_id,
            "connection_id": line.connection_id,
            "content": without_secrets(line.content),
        },
        ensure_ascii=False,
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
