"""Connectors: their status from StatusNotification and, in 2.x, from NotifyEvent, and the topic that tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from busbar.avro import encode
from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.records import Result, StationCall
from services.stations.reading import integer, items, json_text, mapping, text
from services.stations.state import Connector, State, is_news

STATUS_TOPIC = "csms.station-status"


def status_notification_16(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 1.6 §4.9. Connector 0 is the station itself."""
    payload = call.payload
    return report(
        state,
        call,
        evse_id=0,
        connector_id=integer(payload.get("connectorId")) or 0,
        status=text(payload.get("status")) or "",
        timestamp=payload.get("timestamp"),
        error_code=text(payload.get("errorCode")),
        info=text(payload.get("info")),
        vendor_id=text(payload.get("vendorId")),
        vendor_error_code=text(payload.get("vendorErrorCode")),
        payload=payload,
    )


def status_notification_2(state: State, call: StationCall) -> list[Result]:
    """Spec: OCPP 2.0.1 G01."""
    payload = call.payload
    return report(
        state,
        call,
        evse_id=integer(payload.get("evseId")) or 0,
        connector_id=integer(payload.get("connectorId")) or 0,
        status=text(payload.get("connectorStatus")) or "",
        timestamp=payload.get("timestamp"),
        payload=payload,
    )


def availability_events(state: State, call: StationCall) -> list[Result]:
    """The status of connectors that tell it by NotifyEvent, as the variable `AvailabilityState` of `Connector`.

    Spec: OCPP 2.0.1 G01.FR.07: a station may send either message.
    """
    results: list[Result] = []
    for event in items(call.payload.get("eventData")):
        component = mapping(event.get("component"))
        evse = mapping(component.get("evse"))
        connector_id = integer(evse.get("connectorId"))
        status = text(event.get("actualValue"))
        named = (component.get("name"), mapping(event.get("variable")).get("name"))
        if named != ("Connector", "AvailabilityState") or connector_id is None or not status:
            continue
        results += report(
            state,
            call,
            evse_id=integer(evse.get("id")) or 0,
            connector_id=connector_id,
            status=status,
            timestamp=event.get("timestamp"),
            info=text(event.get("techInfo")),
            vendor_error_code=text(event.get("techCode")),
            payload=event,
        )
    return results


def report(
    state: State,
    call: StationCall,
    *,
    evse_id: int,
    connector_id: int,
    status: str,
    timestamp: Any,
    payload: Mapping[str, Any],
    error_code: str | None = None,
    info: str | None = None,
    vendor_id: str | None = None,
    vendor_error_code: str | None = None,
) -> list[Result]:
    """Take over a connector's status and tell of it, unless something later is known."""
    key = (call.station_id, evse_id, connector_id)
    known = state.connectors.get(key)
    if known is not None and not is_news(call, known):
        return []
    same = known is not None and known.status == status
    connector = Connector(
        station_id=call.station_id,
        evse_id=evse_id,
        connector_id=connector_id,
        status=status,
        status_since_ms=known.status_since_ms if known and same else call.received_at_ms,
        previous_status="" if known is None else known.previous_status if same else known.status,
        payload=json_text(payload),
        error_code=error_code,
        info=info,
        vendor_id=vendor_id,
        vendor_error_code=vendor_error_code,
        reported_at_ms=reported_at_ms(timestamp),
        received_at_ms=call.received_at_ms,
        connection_id=call.connection_id,
        sequence=call.sequence,
    )
    state.connectors[key] = connector
    state.changed_connectors.add(key)
    _note_clock(state, call, connector)
    return [status_record(connector, call.version.value)]


def reported_at_ms(timestamp: Any) -> int | None:
    """A station's timestamp in Unix milliseconds; `None` if it cannot be read."""
    if not isinstance(timestamp, str):
        return None
    try:
        return timestamp_ms(parse_timestamp(timestamp))
    except ValueError:
        return None


def status_record(connector: Connector, version: str) -> Result:
    """The record for `csms.station-status`; its key has the EVSE too, for each numbers its own connectors in 2.x."""
    value = {
        "station_id": connector.station_id,
        "evse_id": connector.evse_id,
        "connector_id": connector.connector_id,
        "status": connector.status,
        "ocpp_version": version,
        "received_at": connector.received_at_ms,
        "reported_at": connector.reported_at_ms,
        "status_since": connector.status_since_ms,
        "previous_status": connector.previous_status,
        "error_code": connector.error_code or "",
        "info": connector.info or "",
        "vendor_id": connector.vendor_id or "",
        "vendor_error_code": connector.vendor_error_code or "",
        "connection_id": connector.connection_id,
    }
    key = f"{connector.station_id}/{connector.evse_id}/{connector.connector_id}"
    return Result(
        STATUS_TOPIC, key.encode(), encode("csms.StationStatus", value), timestamp_ms=connector.received_at_ms
    )


def _note_clock(state: State, call: StationCall, connector: Connector) -> None:
    """Keep how far the station's clock is off. A status is told when it changes, and not queued while offline."""
    station = state.stations.get(call.station_id)
    if station is not None and connector.reported_at_ms is not None:
        station.clock_offset_ms = connector.reported_at_ms - call.received_at_ms
        station.clock_offset_at_ms = call.received_at_ms
        state.seen_stations.add(call.station_id)
