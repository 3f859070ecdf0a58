"""PostgreSQL: loads the rows that a batch touches and writes those that it changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from services.stations.state import (
    CLOCK_SKEW_MS,
    Connector,
    ConnectorKey,
    Place,
    State,
    Station,
    StationSettings,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LATEST = datetime.max.replace(tzinfo=UTC)

SELECT_STATIONS = """
SELECT station_id, partition, ocpp_version, vendor, model, serial_number, charge_box_serial_number, firmware_version,
       modem_iccid, modem_imsi, meter_type, meter_serial_number, boot_reason, boot, boot_count, registration_status,
       interval_seconds, last_boot_at, last_boot_connection_id, last_boot_sequence, firmware_status,
       firmware_status_at, log_status, log_status_at, clock_offset_ms, clock_offset_at, last_command_id,
       last_command_action, last_command_stage, last_command_status, last_command_result, last_command_at,
       triggered_at, first_seen_at, last_seen_at
  FROM stations.stations
 WHERE station_id = ANY($1::text[])
"""

SELECT_CONNECTORS = """
SELECT station_id, evse_id, connector_id, status, error_code, info, vendor_id, vendor_error_code, reported_at,
       status_since, previous_status, payload, received_at, connection_id, sequence
  FROM stations.connectors
 WHERE station_id = ANY($1::text[])
"""

SELECT_SETTINGS = """
SELECT station_id, boot_status, heartbeat_interval_seconds
  FROM config.stations
 WHERE station_id = ANY($1::text[])
"""

# One owner folds a station at a time, so a row is simply written as the fold left it.
UPSERT_STATIONS = """
INSERT INTO stations.stations AS known (
       station_id, partition, ocpp_version, vendor, model, serial_number, charge_box_serial_number, firmware_version,
       modem_iccid, modem_imsi, meter_type, meter_serial_number, boot_reason, boot, boot_count, registration_status,
       interval_seconds, last_boot_at, last_boot_connection_id, last_boot_sequence, firmware_status,
       firmware_status_at, log_status, log_status_at, clock_offset_ms, clock_offset_at, last_command_id,
       last_command_action, last_command_stage, last_command_status, last_command_result, last_command_at,
       triggered_at, first_seen_at, last_seen_at)
SELECT * FROM unnest(
       $1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
       $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::bigint[], $16::text[],
       $17::int[], $18::timestamptz[], $19::text[], $20::bigint[], $21::text[],
       $22::timestamptz[], $23::text[], $24::timestamptz[], $25::bigint[], $26::timestamptz[], $27::text[],
       $28::text[], $29::text[], $30::text[], $31::jsonb[], $32::timestamptz[],
       $33::timestamptz[], $34::timestamptz[], $35::timestamptz[])
ON CONFLICT (station_id) DO UPDATE SET
       partition = excluded.partition, ocpp_version = excluded.ocpp_version, vendor = excluded.vendor,
       model = excluded.model, serial_number = excluded.serial_number,
       charge_box_serial_number = excluded.charge_box_serial_number, firmware_version = excluded.firmware_version,
       modem_iccid = excluded.modem_iccid, modem_imsi = excluded.modem_imsi, meter_type = excluded.meter_type,
       meter_serial_number = excluded.meter_serial_number, boot_reason = excluded.boot_reason, boot = excluded.boot,
       boot_count = excluded.boot_count, registration_status = excluded.registration_status,
       interval_seconds = excluded.interval_seconds, last_boot_at = excluded.last_boot_at,
       last_boot_connection_id = excluded.last_boot_connection_id, last_boot_sequence = excluded.last_boot_sequence,
       firmware_status = excluded.firmware_status, firmware_status_at = excluded.firmware_status_at,
       log_status = excluded.log_status, log_status_at = excluded.log_status_at,
       clock_offset_ms = excluded.clock_offset_ms, clock_offset_at = excluded.clock_offset_at,
       last_command_id = excluded.last_command_id, last_command_action = excluded.last_command_action,
       last_command_stage = excluded.last_command_stage, last_command_status = excluded.last_command_status,
       last_command_result = excluded.last_command_result, last_command_at = excluded.last_command_at,
       triggered_at = excluded.triggered_at, first_seen_at = excluded.first_seen_at,
       last_seen_at = excluded.last_seen_at, updated_at = now()
"""

TOUCH_STATIONS = """
UPDATE stations.stations AS known
   SET ocpp_version = seen.ocpp_version, last_seen_at = seen.last_seen_at, clock_offset_ms = seen.clock_offset_ms,
       clock_offset_at = seen.clock_offset_at, updated_at = now()
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::timestamptz[])
       AS seen (station_id, ocpp_version, last_seen_at, clock_offset_ms, clock_offset_at)
 WHERE known.station_id = seen.station_id
"""

UPSERT_CONNECTORS = """
INSERT INTO stations.connectors AS known (
       station_id, evse_id, connector_id, status, error_code, info, vendor_id, vendor_error_code, reported_at,
       status_since, previous_status, payload, received_at, connection_id, sequence)
SELECT * FROM unnest(
       $1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
       $9::timestamptz[], $10::timestamptz[], $11::text[], $12::jsonb[], $13::timestamptz[], $14::text[], $15::bigint[])
ON CONFLICT (station_id, evse_id, connector_id) DO UPDATE SET
       status = excluded.status, error_code = excluded.error_code, info = excluded.info,
       vendor_id = excluded.vendor_id, vendor_error_code = excluded.vendor_error_code,
       reported_at = excluded.reported_at, status_since = excluded.status_since,
       previous_status = excluded.previous_status, payload = excluded.payload, received_at = excluded.received_at,
       connection_id = excluded.connection_id, sequence = excluded.sequence
"""

INSERT_NOTIFICATIONS = """
INSERT INTO stations.notifications (
       notification_id, station_id, action, ocpp_version, payload, status, request_id, received_at, connection_id,
       sequence)
SELECT * FROM unnest(
       $1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::bigint[], $8::timestamptz[],
       $9::text[], $10::bigint[])
ON CONFLICT (notification_id) DO NOTHING
"""

# As `is_news` has it. Variables and documents are not loaded, so the rule is kept here as well.
_NEWS = f"""
       CASE WHEN known.connection_id = excluded.connection_id AND known.sequence > 0 AND excluded.sequence > 0
            THEN excluded.sequence >= known.sequence
            ELSE excluded.received_at >= known.received_at - interval '{CLOCK_SKEW_MS} milliseconds' END
"""

UPSERT_VARIABLES = f"""
INSERT INTO stations.variables AS known (
       station_id, component, component_instance, evse_id, connector_id, variable, variable_instance, attribute,
       value, mutability, persistent, constant, characteristics, source, received_at, connection_id, sequence)
SELECT * FROM unnest(
       $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
       $9::text[], $10::text[], $11::boolean[], $12::boolean[], $13::jsonb[], $14::text[], $15::timestamptz[],
       $16::text[], $17::bigint[])
ON CONFLICT (station_id, component, component_instance, evse_id, connector_id, variable, variable_instance, attribute)
DO UPDATE SET
       value = coalesce(excluded.value, known.value), mutability = coalesce(excluded.mutability, known.mutability),
       persistent = coalesce(excluded.persistent, known.persistent),
       constant = coalesce(excluded.constant, known.constant),
       characteristics = coalesce(excluded.characteristics, known.characteristics), source = excluded.source,
       received_at = excluded.received_at, connection_id = excluded.connection_id, sequence = excluded.sequence
 WHERE {_NEWS}
"""  # noqa: S608 - made of constants

UPSERT_DOCUMENTS = f"""
INSERT INTO stations.documents AS known (
       station_id, kind, key, payload, received_at, connection_id, sequence)
SELECT * FROM unnest(
       $1::text[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::text[], $7::bigint[])
ON CONFLICT (station_id, kind, key) DO UPDATE SET
       payload = excluded.payload, received_at = excluded.received_at, connection_id = excluded.connection_id,
       sequence = excluded.sequence
 WHERE {_NEWS}
"""  # noqa: S608


async def load_stations(connection: Any, station_ids: Collection[str]) -> dict[str, Station]:
    """The known ones among these stations."""
    rows = await connection.fetch(SELECT_STATIONS, list(station_ids)) if station_ids else []
    return {row["station_id"]: _read_station(row) for row in rows}


async def load_connectors(connection: Any, station_ids: Collection[str]) -> dict[ConnectorKey, Connector]:
    """All known connectors of these stations."""
    rows = await connection.fetch(SELECT_CONNECTORS, list(station_ids)) if station_ids else []
    connectors = (_read_connector(row) for row in rows)
    return {(each.station_id, each.evse_id, each.connector_id): each for each in connectors}


async def load_settings(connection: Any, station_ids: Collection[str]) -> dict[str, StationSettings]:
    """What operators decided on these stations, where they decided anything."""
    rows = await connection.fetch(SELECT_SETTINGS, list(station_ids)) if station_ids else []
    return {row["station_id"]: StationSettings(row["boot_status"], row["heartbeat_interval_seconds"]) for row in rows}


async def store_state(connection: Any, state: State) -> None:
    """Write what the fold changed. Rows go in the order of their keys, so that two owners of different partitions,
    who never share a row, would still lock in one order.
    """
    changed = [state.stations[name] for name in sorted(state.changed_stations)]
    seen = [state.stations[name] for name in sorted(state.seen_stations - state.changed_stations)]
    connectors = [state.connectors[key] for key in sorted(state.changed_connectors)]
    await _write(connection, UPSERT_STATIONS, changed, _STATION_COLUMNS)
    await _write(connection, TOUCH_STATIONS, seen, _SEEN_COLUMNS)
    await _write(connection, UPSERT_CONNECTORS, connectors, _CONNECTOR_COLUMNS)
    await _write(connection, INSERT_NOTIFICATIONS, state.notifications.values(), _NOTIFICATION_COLUMNS)
    await _write(connection, UPSERT_VARIABLES, state.variables.values(), _VARIABLE_COLUMNS)
    await _write(connection, UPSERT_DOCUMENTS, state.documents.values(), _DOCUMENT_COLUMNS)


async def _write(connection: Any, sql: str, rows: Iterable[Any], columns: Sequence[Callable[[Any], Any]]) -> None:
    rows = list(rows)
    if rows:
        await connection.execute(sql, *([column(row) for row in rows] for column in columns))


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return _EPOCH + milliseconds * _MILLISECOND
    except OverflowError:
        return _LATEST


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND


def _known_milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _column(name: str) -> Callable[[Any], Any]:
    """A row's value for one column; Unix milliseconds become a moment."""
    value = attrgetter(name)
    return (lambda row: _moment(value(row))) if name.endswith(("_at_ms", "_since_ms")) else value


_STATION_COLUMNS = (
    *map(_column, ("station_id", "partition", "ocpp_version", "vendor", "model", "serial_number")),
    *map(_column, ("charge_box_serial_number", "firmware_version", "modem_iccid", "modem_imsi", "meter_type")),
    *map(_column, ("meter_serial_number", "boot_reason", "boot", "boot_count", "registration_status")),
    _column("interval_seconds"),
    lambda station: station.last_boot and _moment(station.last_boot.received_at_ms),
    lambda station: station.last_boot and station.last_boot.connection_id,
    lambda station: station.last_boot and station.last_boot.sequence,
    *map(_column, ("firmware_status", "firmware_status_at_ms", "log_status", "log_status_at_ms")),
    *map(_column, ("clock_offset_ms", "clock_offset_at_ms", "last_command_id", "last_command_action")),
    *map(_column, ("last_command_stage", "last_command_status", "last_command_result", "last_command_at_ms")),
    *map(_column, ("triggered_at_ms", "first_seen_at_ms", "last_seen_at_ms")),
)
_SEEN_COLUMNS = tuple(
    map(_column, ("station_id", "ocpp_version", "last_seen_at_ms", "clock_offset_ms", "clock_offset_at_ms"))
)
_CONNECTOR_COLUMNS = (
    *map(_column, ("station_id", "evse_id", "connector_id", "status", "error_code", "info", "vendor_id")),
    *map(_column, ("vendor_error_code", "reported_at_ms", "status_since_ms", "previous_status", "payload")),
    *map(_column, ("received_at_ms", "connection_id", "sequence")),
)
_NOTIFICATION_COLUMNS = (
    *map(_column, ("notification_id", "station_id", "action", "ocpp_version", "payload", "status", "request_id")),
    *map(_column, ("received_at_ms", "connection_id", "sequence")),
)
_VARIABLE_COLUMNS = (
    *map(_column, ("station_id", "component", "component_instance", "evse_id", "connector_id", "variable")),
    *map(_column, ("variable_instance", "attribute", "value", "mutability", "persistent", "constant")),
    *map(_column, ("characteristics", "source", "received_at_ms", "connection_id", "sequence")),
)
_DOCUMENT_COLUMNS = tuple(
    map(_column, ("station_id", "kind", "key", "payload", "received_at_ms", "connection_id", "sequence"))
)


def _read_station(row: Mapping[str, Any]) -> Station:
    last_boot_at = _milliseconds(row["last_boot_at"])
    return Station(
        station_id=row["station_id"],
        partition=row["partition"],
        ocpp_version=row["ocpp_version"],
        first_seen_at_ms=_known_milliseconds(row["first_seen_at"]),
        last_seen_at_ms=_known_milliseconds(row["last_seen_at"]),
        vendor=row["vendor"],
        model=row["model"],
        serial_number=row["serial_number"],
        charge_box_serial_number=row["charge_box_serial_number"],
        firmware_version=row["firmware_version"],
        modem_iccid=row["modem_iccid"],
        modem_imsi=row["modem_imsi"],
        meter_type=row["meter_type"],
        meter_serial_number=row["meter_serial_number"],
        boot_reason=row["boot_reason"],
        boot=row["boot"],
        boot_count=row["boot_count"],
        registration_status=row["registration_status"],
        interval_seconds=row["interval_seconds"],
        last_boot=None
        if last_boot_at is None
        else Place(last_boot_at, row["last_boot_connection_id"], row["last_boot_sequence"]),
        firmware_status=row["firmware_status"],
        firmware_status_at_ms=_milliseconds(row["firmware_status_at"]),
        log_status=row["log_status"],
        log_status_at_ms=_milliseconds(row["log_status_at"]),
        clock_offset_ms=row["clock_offset_ms"],
        clock_offset_at_ms=_milliseconds(row["clock_offset_at"]),
        last_command_id=row["last_command_id"],
        last_command_action=row["last_command_action"],
        last_command_stage=row["last_command_stage"],
        last_command_status=row["last_command_status"],
        last_command_result=row["last_command_result"],
        last_command_at_ms=_milliseconds(row["last_command_at"]),
        triggered_at_ms=_milliseconds(row["triggered_at"]),
    )


def _read_connector(row: Mapping[str, Any]) -> Connector:
    return Connector(
        station_id=row["station_id"],
        evse_id=row["evse_id"],
        connector_id=row["connector_id"],
        status=row["status"],
        status_since_ms=_known_milliseconds(row["status_since"]),
        previous_status=row["previous_status"],
        payload=row["payload"],
        error_code=row["error_code"],
        info=row["info"],
        vendor_id=row["vendor_id"],
        vendor_error_code=row["vendor_error_code"],
        reported_at_ms=_milliseconds(row["reported_at"]),
        received_at_ms=_known_milliseconds(row["received_at"]),
        connection_id=row["connection_id"],
        sequence=row["sequence"],
    )
