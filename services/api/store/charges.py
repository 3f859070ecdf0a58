"""Queries about sessions as billing sees them, what was settled for them, and energy that nobody pays for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.api.store.narrowing import narrowed

_COLUMNS = """session_id, station_id, transaction_id, site_id, evse_id, connector_id, id_token, id_token_type,
    ocpp_version, status, reason, tariff_id, tariff_version, time_zone, currency, cost_excl, cost_incl, energy_wh,
    energy_rung, started_at, ended_at, cdr_id, cdr_count, flags, updated_at"""

FIND = f"SELECT {_COLUMNS} FROM billing.sessions WHERE session_id = $1"  # noqa: S608 - constants

SETTLEMENTS = """
SELECT psp_ref, status, status_info, amount, currency, settled_at, receipt_id, receipt_url, vat_company, vat_number,
    received_at
FROM billing.settlements WHERE session_id = $1 ORDER BY received_at, psp_ref
"""

STATION_COST = """
SELECT currency, total, after_tax, ours, difference, failed, reason, checked_at
FROM billing.station_costs WHERE session_id = $1
"""


@dataclass(frozen=True, slots=True)
class ChargeFilter:
    """What sessions are narrowed down to; `None` everywhere: nothing."""

    status: str | None = None
    station_id: str | None = None
    site_id: str | None = None
    id_token_key: str | None = None
    tariff_id: str | None = None
    currency: str | None = None
    started_from: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnattributedFilter:
    """What unattributed energy is narrowed down to; `None` everywhere: nothing."""

    station_id: str | None = None
    at_from: datetime | None = None
    at_before: datetime | None = None


async def list_charges(
    pool: asyncpg.Pool[Any], wanted: ChargeFilter, after: tuple[datetime | None, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """One page: first those whose begin is not known, then the newest.

    Args:
        after: When the last one of the page before began, and its id.
    """
    values: list[Any] = []
    conditions = (
        ("status = ${}", wanted.status),
        ("station_id = ${}", wanted.station_id),
        ("site_id = ${}", wanted.site_id),
        ("lower(id_token) = ${}", wanted.id_token_key),
        ("tariff_id = ${}", wanted.tariff_id),
        ("currency = ${}", wanted.currency),
        ("started_at >= ${}", wanted.started_from),
        ("started_at < ${}", wanted.started_before),
    )
    clauses = narrowed(conditions, values)
    if after is not None and after[0] is None:
        values.append(after[1])
        clauses.append(f"(started_at IS NOT NULL OR session_id < ${len(values)})")
    elif after is not None:
        values.extend(after)
        clauses.append(f"(started_at, session_id) < (${len(values) - 1}, ${len(values)})")
    statement = (
        f"SELECT {_COLUMNS} FROM billing.sessions WHERE {' AND '.join(clauses)}"  # noqa: S608 - constants
        f" ORDER BY started_at DESC NULLS FIRST, session_id DESC LIMIT ${len(values) + 1}"
    )
    return await pool.fetch(statement, *values, limit)


async def list_unattributed(
    pool: asyncpg.Pool[Any], wanted: UnattributedFilter, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """One page, the newest first.

    Args:
        after: When the last one of the page before was noticed, and its id.
    """
    values: list[Any] = []
    conditions = (
        ("station_id = ${}", wanted.station_id),
        ("at >= ${}", wanted.at_from),
        ("at < ${}", wanted.at_before),
    )
    clauses = narrowed(conditions, values)
    if after is not None:
        values.extend(after)
        clauses.append(f"(at, event_id) < (${len(values) - 1}, ${len(values)})")
    statement = (
        "SELECT event_id, station_id, evse_id, energy_wh, register_begin_wh, register_end_wh, at, session_id"  # noqa: S608 - constants
        f" FROM billing.unattributed WHERE {' AND '.join(clauses)}"
        f" ORDER BY at DESC, event_id DESC LIMIT ${len(values) + 1}"
    )
    return await pool.fetch(statement, *values, limit)
