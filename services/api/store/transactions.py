"""Queries about transactions and their meter values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

_COLUMNS = """session_id, station_id, transaction_id, generation, ocpp_version, site_id, evse_id, connector_id,
    id_token, id_token_type, group_id, authorization_status, state, is_open, is_final, is_complete, opened_at,
    started_at, ended_at, last_event_at, charging_state, energy_wh, energy_rung, register_begin_wh, register_end_wh,
    stop_reason, reservation_id, remote_start_id, event_count, flags"""

FIND = f"SELECT {_COLUMNS} FROM sessions.transactions WHERE session_id = $1"  # noqa: S608 - constants

SAMPLES = """
SELECT event_key, event, happened_at, received_at, measurand, phase, location, context, unit, value
FROM sessions.meter_samples WHERE session_id = $1
ORDER BY received_at, event_key, happened_at, place LIMIT $2
"""

SIGNED = """
SELECT event_key, station_at, context, encoding_method, signing_method, public_key, data
FROM sessions.signed_values WHERE session_id = $1 ORDER BY event_key, sample_index LIMIT $2
"""

RESERVATION = """
SELECT reservation_id, made_at, expires_at, ended_at
FROM sessions.reservations WHERE session_id = $1 AND status = 'used' ORDER BY made_at DESC LIMIT 1
"""

_CHANGE_COLUMNS = """change_id, session_id, tariff_id, version, status, requested_by, requested_at, applies_from,
    command_id, reason"""

FIND_CHANGE = f"SELECT {_CHANGE_COLUMNS} FROM sessions.tariff_changes WHERE change_id = $1"  # noqa: S608 - constants

CHANGES = f"""
SELECT {_CHANGE_COLUMNS} FROM sessions.tariff_changes WHERE session_id = $1 ORDER BY requested_at, change_id LIMIT $2
"""  # noqa: S608 - constants

TARIFF = """
-- A version of a tariff that is valid: the given one, else that of now.
SELECT version FROM config.tariffs
WHERE tariff_id = $1 AND removed_at IS NULL AND valid_from <= now() AND ($2::integer IS NULL OR version = $2)
ORDER BY valid_from DESC, version DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """What a list of transactions is narrowed down to; `None` everywhere: nothing."""

    station_id: str | None = None
    site_id: str | None = None
    is_open: bool | None = None
    opened_from: datetime | None = None
    opened_before: datetime | None = None
    id_token_key: str | None = None


async def list_transactions(
    pool: asyncpg.Pool[Any], wanted: TransactionFilter, after: tuple[datetime, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """One page, the newest first.

    Args:
        after: When the last one of the page before was opened, and its id.
    """
    clauses: list[str] = ["true"]
    values: list[Any] = []
    for clause, value in (
        ("station_id = ${}", wanted.station_id),
        ("site_id = ${}", wanted.site_id),
        ("is_open = ${}", wanted.is_open),
        ("opened_at >= ${}", wanted.opened_from),
        ("opened_at < ${}", wanted.opened_before),
        ("id_token_key = ${}", wanted.id_token_key),
    ):
        if value is not None:
            values.append(value)
            clauses.append(clause.format(len(values)))
    if after is not None:
        values.extend(after)
        clauses.append(f"(opened_at, session_id) < (${len(values) - 1}, ${len(values)})")
    statement = (
        f"SELECT {_COLUMNS} FROM sessions.transactions WHERE {' AND '.join(clauses)}"  # noqa: S608 - constants
        f" ORDER BY opened_at DESC, session_id DESC LIMIT ${len(values) + 1}"
    )
    return await pool.fetch(statement, *values, limit)
