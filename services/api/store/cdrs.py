"""Queries about charge detail records. They are never changed, only added."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.api.store.narrowing import narrowed

SUMMARY = (
    "cdr_id",
    "session_id",
    "number",
    "credit",
    "credit_reference_id",
    "station_id",
    "site_id",
    "id_token",
    "started_at",
    "ended_at",
    "currency",
    "total_excl",
    "total_incl",
    "energy_wh",
    "energy_rung",
    "tariff_id",
    "tariff_version",
    "flags",
    "last_updated",
)
"""Everything but the documents."""
_COLUMNS = ", ".join(SUMMARY)
_CREDITED = (
    "(SELECT c.cdr_id FROM billing.cdrs c WHERE c.session_id = r.session_id AND c.credit_reference_id = r.cdr_id)"
)

FIND = f"SELECT {_COLUMNS}, ocpi, bill, {_CREDITED} AS credited_by FROM billing.cdrs r WHERE cdr_id = $1"  # noqa: S608 - constants

OF_SESSION = f"SELECT {_COLUMNS} FROM billing.cdrs WHERE session_id = $1 ORDER BY number, credit"  # noqa: S608 - constants

_EXPORT_SETTINGS = """
SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL statement_timeout = '60s';
SET LOCAL jit = off
"""
"""An export may wait for its reader, but no longer than a minute: it holds a connection."""


@dataclass(frozen=True, slots=True)
class CdrFilter:
    """What records are narrowed down to; `None` everywhere: nothing."""

    station_id: str | None = None
    site_id: str | None = None
    id_token_key: str | None = None
    session_id: UUID | None = None
    currency: str | None = None
    credit: bool | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    ended_from: datetime | None = None
    ended_before: datetime | None = None

    def conditions(self) -> tuple[list[str], list[Any]]:
        """SQL conditions and their values."""
        values: list[Any] = []
        conditions = (
            ("station_id = ${}", self.station_id),
            ("site_id = ${}", self.site_id),
            ("lower(id_token) = ${}", self.id_token_key),
            ("session_id = ${}", self.session_id),
            ("currency = ${}", self.currency),
            ("credit = ${}", self.credit),
            ("last_updated >= ${}", self.updated_from),
            ("last_updated < ${}", self.updated_before),
            ("ended_at >= ${}", self.ended_from),
            ("ended_at < ${}", self.ended_before),
        )
        return narrowed(conditions, values), values


async def list_cdrs(
    pool: asyncpg.Pool[Any], wanted: CdrFilter, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """One page, the newest first.

    Args:
        after: When the last one of the page before was updated, and its id.
    """
    clauses, values = wanted.conditions()
    if after is not None:
        values.extend(after)
        clauses.append(f"(last_updated, cdr_id) < (${len(values) - 1}, ${len(values)})")
    statement = (
        f"SELECT {_COLUMNS} FROM billing.cdrs WHERE {' AND '.join(clauses)}"  # noqa: S608 - constants
        f" ORDER BY last_updated DESC, cdr_id DESC LIMIT ${len(values) + 1}"
    )
    return await pool.fetch(statement, *values, limit)


async def export_cdrs(
    pool: asyncpg.Pool[Any], wanted: CdrFilter, documents: Sequence[str], *, rows: int = 500
) -> AsyncIterator[list[asyncpg.Record]]:
    """All records, the oldest first, so many at a time: what is there when it begins, however long it takes.

    Args:
        documents: `ocpi`, `bill`, or none: they are most of a record.
        rows: How many are held in memory.
    """
    clauses, values = wanted.conditions()
    columns = ", ".join((*SUMMARY, *documents))
    statement = (
        f"SELECT {columns} FROM billing.cdrs WHERE {' AND '.join(clauses)}"  # noqa: S608 - constants
        " ORDER BY last_updated, cdr_id"
    )
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_EXPORT_SETTINGS)
        cursor = await connection.cursor(statement, *values)
        while records := await cursor.fetch(rows):
            yield records
