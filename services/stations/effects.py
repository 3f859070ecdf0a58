"""What an action leaves behind besides its answer: notifications, variables and documents.

An effect is a plain function of state and CALL. Those that are the same for many actions are made here by
parameters, so that the table of actions stays one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

from busbar.records import Result, StationCall
from services.stations.reading import flag, integer, items, json_text, mapping, text
from services.stations.state import Document, Notification, State, Variable

Effect = Callable[[State, StationCall], Iterable[Result]]
Key = Callable[[Mapping[str, Any]], str]
"""What tells documents of one kind apart."""

DATED = ("timestamp", "generatedAt")
"""Fields that date a notification: one that has any is the same fact however often it is sent."""


def keep(state: State, call: StationCall) -> list[Result]:
    """Append the payload to the notifications, once for each fact.

    A payload with a date of its own is its own business key, so that a station which resends it after a
    reconnect adds nothing. Others are told apart by their place in the connection.
    """
    payload = json_text(call.payload)
    if any(name in call.payload for name in DATED):
        fact = f"{call.station_id}\n{call.action}\n{payload}"
    else:
        fact = f"{call.station_id}\n{call.action}\n{call.connection_id}\n{call.sequence}"
    notification_id = UUID(bytes=blake2b(fact.encode(), digest_size=16).digest())
    state.notifications[notification_id] = Notification(
        notification_id=notification_id,
        station_id=call.station_id,
        action=call.action,
        ocpp_version=call.version.value,
        payload=payload,
        status=text(_first(call.payload, "status", "type", "eventType", "reason", "controlType")),
        request_id=integer(call.payload.get("requestId")),
        received_at_ms=call.received_at_ms,
        connection_id=call.connection_id,
        sequence=call.sequence,
    )
    return []


def firmware_status(state: State, call: StationCall) -> list[Result]:
    """The last firmware status of the station."""
    station = state.stations[call.station_id]
    if call.received_at_ms >= (station.firmware_status_at_ms or 0):
        station.firmware_status = text(call.payload.get("status"))
        station.firmware_status_at_ms = call.received_at_ms
        state.changed_stations.add(call.station_id)
    return []


def log_status(state: State, call: StationCall) -> list[Result]:
    """The last status of an upload of logs or diagnostics."""
    station = state.stations[call.station_id]
    if call.received_at_ms >= (station.log_status_at_ms or 0):
        station.log_status = text(call.payload.get("status"))
        station.log_status_at_ms = call.received_at_ms
        state.changed_stations.add(call.station_id)
    return []


def document(kind: str, key: Key) -> Effect:
    """Keep the payload as the document of this kind and key."""

    def effect(state: State, call: StationCall) -> list[Result]:
        state.put_document(_document(call, kind, key(call.payload), call.payload))
        return []

    return effect


def documents(kind: str, field: str, key: Key, *common: str) -> Effect:
    """Keep each object of the list `field` as a document, with the `common` fields of the payload beside it."""

    def effect(state: State, call: StationCall) -> list[Result]:
        beside = {name: call.payload[name] for name in common if name in call.payload}
        for item in items(call.payload.get(field)):
            state.put_document(_document(call, kind, key(item), {**beside, **item}))
        return []

    return effect


def withdraw(kind: str, key: Key) -> Effect:
    """Mark the document of this kind and key as withdrawn. Its row stays, so that an older event does not revive it."""

    def effect(state: State, call: StationCall) -> list[Result]:
        state.put_document(_document(call, kind, key(call.payload), None))
        return []

    return effect


def der_controls(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 2.1 R: ReportDERControl has one list for each type of control, of objects with an id."""
    for name, value in call.payload.items():
        for control in items(value):
            state.put_document(_document(call, "der-control", label(name, control.get("id")), {name: control}))
    return []


def monitors(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 2.0.1 N02: the monitors of a report, each with its component and variable."""
    for entry in items(call.payload.get("monitor")):
        of = {name: entry[name] for name in ("component", "variable") if name in entry}
        for monitor in items(entry.get("variableMonitoring")):
            state.put_document(_document(call, "variable-monitor", label(monitor.get("id")), {**of, **monitor}))
    return []


def reported_variables(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 2.0.1 B07, B08: the device model, part by part."""
    state.put_variables(
        _variable(
            entry,
            attribute.get("type"),
            value=text(attribute.get("value")),
            mutability=text(attribute.get("mutability")) or "ReadWrite",
            persistent=flag(attribute.get("persistent")),
            constant=flag(attribute.get("constant")),
            characteristics=mapping(entry.get("variableCharacteristics")),
            call=call,
        )
        for entry in items(call.payload.get("reportData"))
        for attribute in items(entry.get("variableAttribute"))
    )
    return []


def event_variables(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 2.0.1 N07: an event carries the actual value of a variable."""
    state.put_variables(
        _variable(entry, "Actual", value=text(entry.get("actualValue")), call=call)
        for entry in items(call.payload.get("eventData"))
    )
    return []


def _variable(
    entry: Mapping[str, Any],
    attribute: Any,
    *,
    value: str | None,
    call: StationCall,
    mutability: str | None = None,
    persistent: bool | None = None,
    constant: bool | None = None,
    characteristics: Mapping[str, Any] | None = None,
) -> Variable:
    return named_variable(
        call.station_id,
        entry,
        attribute,
        value=value,
        mutability=mutability,
        persistent=persistent,
        constant=constant,
        characteristics=json_text(characteristics) if characteristics else None,
        source=call.action,
        received_at_ms=call.received_at_ms,
        connection_id=call.connection_id,
        sequence=call.sequence,
    )


def named_variable(
    station_id: str,
    entry: Mapping[str, Any],
    attribute: Any,
    *,
    value: str | None,
    source: str,
    received_at_ms: int,
    connection_id: str,
    sequence: int,
    mutability: str | None = None,
    persistent: bool | None = None,
    constant: bool | None = None,
    characteristics: str | None = None,
) -> Variable:
    """A variable of the device model, named by the `component` and `variable` of `entry`."""
    component = mapping(entry.get("component"))
    evse = mapping(component.get("evse"))
    variable = mapping(entry.get("variable"))
    return Variable(
        station_id=station_id,
        component=label(component.get("name")),
        component_instance=label(component.get("instance")),
        evse_id=integer(evse.get("id")) or 0,
        connector_id=integer(evse.get("connectorId")) or 0,
        variable=label(variable.get("name")),
        variable_instance=label(variable.get("instance")),
        attribute=label(attribute or "Actual"),
        value=value,
        mutability=mutability,
        persistent=persistent,
        constant=constant,
        characteristics=characteristics,
        source=source,
        received_at_ms=received_at_ms,
        connection_id=connection_id,
        sequence=sequence,
    )


def _document(call: StationCall, kind: str, key: str, payload: Mapping[str, Any] | None) -> Document:
    return Document(
        station_id=call.station_id,
        kind=kind,
        key=key,
        payload=None if payload is None else json_text(payload),
        received_at_ms=call.received_at_ms,
        connection_id=call.connection_id,
        sequence=call.sequence,
    )


def by(*names: str) -> Key:
    """A key of these fields of the payload."""
    return lambda payload: label(*(payload.get(name) for name in names))


def label(*parts: Any) -> str:
    """Parts of a key in one string; absent ones are empty. Bounded, because an index row is."""
    return "/".join("" if part is None else str(part).replace("\x00", "\ufffd")[:255] for part in parts)


def _first(payload: Mapping[str, Any], *names: str) -> Any:
    return next((payload[name] for name in names if name in payload), None)
