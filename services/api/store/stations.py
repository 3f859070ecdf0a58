"""Queries about stations: their settings, presence and shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

SETTINGS = (
    "boot_status",
    "heartbeat_interval_seconds",
    "ocpp_version",
    "security_profile",
    "max_frame_bytes",
    "ping_interval_seconds",
    "enabled",
    "site_id",
    "location_id",
    "quirks",
)
"""Columns of config.stations that the API lets people set."""

_COLUMNS = """
    s.password_hash IS NOT NULL AS has_password, s.boot_status, s.heartbeat_interval_seconds, s.ocpp_version,
    s.security_profile, s.max_frame_bytes, s.ping_interval_seconds, s.enabled, s.site_id, s.location_id, s.quirks,
    s.created_at, s.updated_at,
    coalesce(c.online, false) AS online, c.connection_id, c.edge, c.edge_partition,
    c.ocpp_version AS connection_version, c.subprotocol, c.remote_address,
    c.security_profile AS connection_profile, c.connected_at, c.disconnected_at,
    c.close_code, c.close_reason,
    t.vendor, t.model, t.serial_number, t.firmware_version, t.registration_status, t.last_boot_at, t.last_seen_at
"""

LIST_REGISTERED = f"""
SELECT s.station_id, true AS registered, {_COLUMNS}
FROM config.stations AS s
LEFT JOIN router.connections AS c ON c.station_id = s.station_id
LEFT JOIN stations.stations AS t ON t.station_id = s.station_id
WHERE s.station_id > $1
"""  # noqa: S608 - constants

LIST_UNREGISTERED = f"""
-- Stations that connected although nobody registered them (where that is allowed).
SELECT c.station_id, false AS registered, {_COLUMNS}
FROM router.connections AS c
LEFT JOIN config.stations AS s ON s.station_id = c.station_id
LEFT JOIN stations.stations AS t ON t.station_id = c.station_id
WHERE s.station_id IS NULL AND c.station_id > $1
"""  # noqa: S608 - constants

FIND = f"""
SELECT wanted.station_id, s.station_id IS NOT NULL AS registered, {_COLUMNS},
    t.charge_box_serial_number, t.modem_iccid, t.modem_imsi, t.meter_type, t.meter_serial_number, t.boot_reason,
    t.boot, t.boot_count, t.interval_seconds, t.firmware_status, t.firmware_status_at, t.log_status, t.log_status_at,
    t.clock_offset_ms, t.last_command_id, t.last_command_action, t.last_command_stage, t.last_command_status,
    t.last_command_result, t.last_command_at, t.first_seen_at
FROM (SELECT $1::text AS station_id) AS wanted
LEFT JOIN config.stations AS s ON s.station_id = wanted.station_id
LEFT JOIN router.connections AS c ON c.station_id = wanted.station_id
LEFT JOIN stations.stations AS t ON t.station_id = wanted.station_id
WHERE s.station_id IS NOT NULL OR c.station_id IS NOT NULL OR t.station_id IS NOT NULL
"""  # noqa: S608 - constants

CONNECTORS = """
SELECT evse_id, connector_id, status, error_code, info, vendor_id, vendor_error_code, status_since, reported_at,
    received_at
FROM stations.connectors WHERE station_id = $1 ORDER BY evse_id, connector_id
"""

OPEN_TRANSACTIONS = """
SELECT session_id, transaction_id, evse_id, connector_id, started_at, charging_state, energy_wh
FROM sessions.transactions WHERE station_id = $1 AND is_open ORDER BY opened_at
"""

LAST_TRANSACTION_EVENT = """
SELECT t.session_id, t.transaction_id, t.state, t.energy_wh, t.last_event_at, e.event, e.trigger, e.happened_at
FROM sessions.transactions AS t
LEFT JOIN LATERAL (
    SELECT event, trigger, happened_at FROM sessions.meter_values
    WHERE session_id = t.session_id ORDER BY received_at DESC, happened_at DESC LIMIT 1
) AS e ON true
WHERE t.station_id = $1 ORDER BY t.last_event_at DESC LIMIT 1
"""

CREATE = """
INSERT INTO config.stations (station_id, password_hash, boot_status, heartbeat_interval_seconds, ocpp_version,
    security_profile, max_frame_bytes, ping_interval_seconds, enabled, site_id, location_id, quirks)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (station_id) DO NOTHING RETURNING station_id
"""

REPLACE_CREDENTIAL = """
UPDATE config.stations SET password_hash = $2, updated_at = now() WHERE station_id = $1 RETURNING station_id
"""

DELETE = "DELETE FROM config.stations WHERE station_id = $1 RETURNING station_id"

FIND_CONNECTION = """
SELECT connection_id, edge_partition FROM router.connections WHERE station_id = $1 AND online
"""


@dataclass(frozen=True, slots=True)
class StationFilter:
    """What a list of stations is narrowed down to; `None` everywhere: nothing."""

    prefix: str | None = None
    online: bool | None = None
    version: str | None = None
    """Of the connection."""
    site: str | None = None
    vendor: str | None = None
    model: str | None = None
    registered: bool | None = None


def _conditions(wanted: StationFilter, first: int, station_id: str) -> tuple[str, list[Any]]:
    """SQL conditions on the columns of the lists, with parameters from `$first` on."""
    clauses, values = [], []
    for clause, value in (
        (f"{station_id} ~>=~ $# AND {station_id} ~<~ $#", wanted.prefix),
        ("coalesce(c.online, false) = $#", wanted.online),
        ("c.ocpp_version = $#", wanted.version),
        ("s.site_id = $#", wanted.site),
        ("t.vendor = $#", wanted.vendor),
        ("t.model = $#", wanted.model),
    ):
        if value is None:
            continue
        bounds = [value, _after_prefix(str(value))] if clause.count("$#") == 2 else [value]
        for bound in bounds:
            values.append(bound)
            clause = clause.replace("$#", f"${first + len(values) - 1}", 1)
        clauses.append(clause)
    return "".join(f" AND {clause}" for clause in clauses), values


def _after_prefix(prefix: str) -> str:
    """The least text that is above everything with this prefix, code point by code point."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            following = 0xE000 if code == 0xD7FF else code + 1
            return prefix[:index] + chr(following)
    return chr(0x10FFFF) * 256


async def list_stations(pool: asyncpg.Pool[Any], wanted: StationFilter, after: str, limit: int) -> list[asyncpg.Record]:
    """One page in the order of the ids: registered stations, and those that connected unregistered, among them."""
    rows: list[asyncpg.Record] = []
    if wanted.registered is not False:
        where, values = _conditions(wanted, 2, "s.station_id")
        limited = f"{LIST_REGISTERED}{where} ORDER BY s.station_id LIMIT ${len(values) + 2}"
        rows = await pool.fetch(limited, after, *values, limit)
    if wanted.registered is True:
        return rows
    # Only those that belong on this page are looked for.
    where, values = _conditions(wanted, 2, "c.station_id")
    if len(rows) == limit:
        values.append(rows[-1]["station_id"])
        where += f" AND c.station_id < ${len(values) + 1}"
    limited = f"{LIST_UNREGISTERED}{where} ORDER BY c.station_id LIMIT ${len(values) + 2}"
    others = await pool.fetch(limited, after, *values, limit)
    if not others:
        return rows
    return await _merged(pool, rows, others, limit)


async def _merged(
    pool: asyncpg.Pool[Any], rows: list[asyncpg.Record], others: list[asyncpg.Record], limit: int
) -> list[asyncpg.Record]:
    """Both, in the database's order of text, which Python does not know."""
    by_id = {row["station_id"]: row for row in (*rows, *others)}
    order = await pool.fetch("SELECT id FROM unnest($1::text[]) AS id ORDER BY id LIMIT $2", list(by_id), limit)
    return [by_id[row["id"]] for row in order]


async def update_station(pool: asyncpg.Pool[Any], station_id: str, changes: Mapping[str, Any]) -> bool:
    """Set columns of `SETTINGS`; returns whether the station is registered."""
    assert set(changes) <= set(SETTINGS)
    assignments = "".join(f"{name} = ${index}, " for index, name in enumerate(changes, 2))
    statement = f"UPDATE config.stations SET {assignments}updated_at = now() WHERE station_id = $1 RETURNING station_id"  # noqa: S608 - names of SETTINGS
    return await pool.fetchval(statement, station_id, *changes.values()) is not None
