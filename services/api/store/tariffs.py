"""Queries about tariffs, their assignments and sites.

Whatever is written takes effect a second later at the earliest: by then every service can see it, so that the events
of a session lead to the same tariff whenever they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from busbar.pricing.tariff import Tariff

# Whole milliseconds, as instants of events are.
_SOONEST = "date_trunc('milliseconds', clock_timestamp() + interval '1.001 seconds')"

_META = """tariff_id, version, format, currency, fingerprint, valid_from, created_at"""

LIST = f"""
-- The latest version of each tariff.
SELECT DISTINCT ON (tariff_id) {_META} FROM config.tariffs
WHERE removed_at IS NULL AND tariff_id > $1 AND ($2::text IS NULL OR starts_with(tariff_id, $2))
ORDER BY tariff_id, version DESC LIMIT $3
"""  # noqa: S608 - constants

VERSIONS = f"""
SELECT {_META}, content, valid_from <= now() AS in_force FROM config.tariffs
WHERE tariff_id = $1 AND removed_at IS NULL ORDER BY version DESC
"""  # noqa: S608 - constants

FIND = f"""
SELECT {_META}, content FROM config.tariffs WHERE tariff_id = $1 AND version = $2 AND removed_at IS NULL
"""  # noqa: S608 - constants

CURRENT = f"""
-- The version that sessions which start now have, the tariff's own dates aside; else the one that comes first.
SELECT {_META}, content FROM config.tariffs WHERE tariff_id = $1 AND removed_at IS NULL
ORDER BY valid_from <= now() DESC, CASE WHEN valid_from <= now() THEN now() - valid_from ELSE valid_from - now() END,
    version DESC
LIMIT 1
"""  # noqa: S608 - constants

_LOCK = "SELECT 1 FROM config.tariff_revision FOR UPDATE"

_LATEST = f"""
SELECT {_META}, content FROM config.tariffs WHERE tariff_id = $1 AND removed_at IS NULL
ORDER BY version DESC LIMIT 1
"""  # noqa: S608 - constants

_ADD = f"""
INSERT INTO config.tariffs (tariff_id, version, content, format, currency, fingerprint, valid_from)
VALUES ($1, (SELECT coalesce(max(version), 0) + 1 FROM config.tariffs WHERE tariff_id = $1), $2, $3, $4, $5,
    greatest($6, {_SOONEST}))
RETURNING {_META}, content
"""  # noqa: S608 - constants

REMOVE = f"""
UPDATE config.tariffs SET removed_at = now()
WHERE tariff_id = $1 AND version = $2 AND removed_at IS NULL AND valid_from > {_SOONEST}
RETURNING version
"""  # noqa: S608 - constants

_ASSIGNMENT = """assignment_id, tariff_id, scope, subject, priority, valid_from, valid_until, created_at"""

ASSIGN = f"""
INSERT INTO config.tariff_assignments (assignment_id, tariff_id, scope, subject, priority, valid_from, valid_until)
SELECT $1, $2, $3, $4, $5, greatest($6, {_SOONEST}), $7
WHERE EXISTS (SELECT FROM config.tariffs WHERE tariff_id = $2 AND removed_at IS NULL)
RETURNING {_ASSIGNMENT}
"""  # noqa: S608 - constants

FIND_ASSIGNMENT = f"""
SELECT {_ASSIGNMENT} FROM config.tariff_assignments WHERE assignment_id = $1
"""  # noqa: S608 - constants

END_ASSIGNMENT = f"""
-- One that has not begun ends where it begins.
UPDATE config.tariff_assignments SET valid_until = greatest(valid_from, $2, {_SOONEST})
WHERE assignment_id = $1 AND (valid_until IS NULL OR valid_until > {_SOONEST})
RETURNING {_ASSIGNMENT}
"""  # noqa: S608 - constants

FACTS_OF_START = """
-- What the configuration knows of a session that would start: the station's site, and the token's group.
SELECT (SELECT site_id FROM config.stations WHERE station_id = $1) AS site_id,
    (SELECT group_id FROM config.tokens WHERE id_token_key = $2) AS group_id
"""


RECORDED_SESSION = """
SELECT t.last_event_at, t.started_at, t.ended_at, t.energy_wh, t.energy_rung, t.register_begin_wh, t.register_end_wh,
    coalesce(b.time_zone, s.time_zone) AS time_zone,
    (SELECT min(r.made_at) FROM sessions.reservations AS r
      WHERE r.session_id = t.session_id AND r.status = 'used') AS reserved_at
FROM sessions.transactions AS t
LEFT JOIN billing.sessions AS b USING (session_id)
LEFT JOIN config.sites AS s ON s.site_id = t.site_id
WHERE t.session_id = $1
"""

RECORDED_FACTS = "SELECT facts FROM billing.facts WHERE session_id = $1 ORDER BY sequence"


async def add_version(
    pool: asyncpg.Pool[Any], tariff: Tariff, content: str, valid_from: datetime | None
) -> tuple[asyncpg.Record, bool]:
    """Add a version, unless it is the latest one again, and say whether it was added."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK)  # one writer at a time, so that no number is given twice
        latest = await connection.fetchrow(_LATEST, tariff.tariff_id)
        if latest is not None and latest["fingerprint"] == tariff.fingerprint and valid_from is None:
            return latest, False
        row = await connection.fetchrow(
            _ADD, tariff.tariff_id, content, format_name(tariff), tariff.currency, tariff.fingerprint, valid_from
        )
        assert row is not None
        return row, True


def format_name(tariff: Tariff) -> str:
    """What its content is, as `config.tariffs.format` has it."""
    return tariff.format.lower().replace(" ", "-")


async def list_assignments(
    pool: asyncpg.Pool[Any],
    wanted: Mapping[str, Any],
    standing: bool | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """One page, the newest first.

    Args:
        wanted: By column: `tariff_id`, `scope`, `subject`.
        standing: Whether they have not ended; `None`: all.
        after: When the last one of the page before was made, and its id.
    """
    clauses, values = ["true"], []
    for column in ("tariff_id", "scope", "subject"):
        if wanted.get(column) is not None:
            values.append(wanted[column])
            clauses.append(f"{column} = ${len(values)}")
    if standing is not None:
        clauses.append("(valid_until IS NULL OR valid_until > now())" if standing else "valid_until <= now()")
    if after is not None:
        values.extend(after)
        clauses.append(f"(created_at, assignment_id) < (${len(values) - 1}, ${len(values)})")
    values.append(limit)
    statement = (
        f"SELECT {_ASSIGNMENT} FROM config.tariff_assignments WHERE {' AND '.join(clauses)} "  # noqa: S608 - constants
        f"ORDER BY created_at DESC, assignment_id DESC LIMIT ${len(values)}"
    )
    return await pool.fetch(statement, *values)
