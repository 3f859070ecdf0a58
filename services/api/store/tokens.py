"""Queries about id tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

SETTINGS = (
    "id_token_type",
    "status",
    "expires_at",
    "valid_from",
    "group_id",
    "cache_expires_seconds",
    "allow_concurrent",
    "max_concurrent",
    "allowed_stations",
    "allowed_sites",
    "language",
    "contract_id",
    "max_cost",
    "max_energy_wh",
    "max_time_seconds",
)
"""Columns of config.tokens that the API lets people set."""

_COLUMNS = """id_token, id_token_key, id_token_type, status, expires_at, valid_from, group_id, cache_expires_seconds,
    allow_concurrent, max_concurrent, allowed_stations, allowed_sites, language, contract_id, max_cost,
    max_energy_wh, max_time_seconds, created_at, updated_at"""

LIST = f"""
SELECT {_COLUMNS} FROM config.tokens
WHERE id_token_key > $1 AND ($2::text IS NULL OR starts_with(id_token_key, $2))
    AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR group_id = $4)
ORDER BY id_token_key LIMIT $5
"""  # noqa: S608 - constants

FIND = f"SELECT {_COLUMNS} FROM config.tokens WHERE id_token_key = $1"  # noqa: S608 - constants

CREATE = f"""
INSERT INTO config.tokens (id_token, id_token_key, id_token_type, status, expires_at, valid_from, group_id,
    cache_expires_seconds, allow_concurrent, max_concurrent, allowed_stations, allowed_sites, language, contract_id,
    max_cost, max_energy_wh, max_time_seconds)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (id_token_key) DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608 - constants

DELETE = "DELETE FROM config.tokens WHERE id_token_key = $1 RETURNING id_token_key"


def token_key(id_token: str) -> str:
    """How a token is found: OCPP compares id tokens without regard to case."""
    return id_token.casefold()


async def update_token(pool: asyncpg.Pool[Any], id_token: str, changes: Mapping[str, Any]) -> asyncpg.Record | None:
    """Set columns of `SETTINGS` and return the token, if there is one."""
    assert set(changes) <= set(SETTINGS)
    assignments = "".join(f"{name} = ${index}, " for index, name in enumerate(changes, 2))
    statement = f"UPDATE config.tokens SET {assignments}updated_at = now() WHERE id_token_key = $1 RETURNING {_COLUMNS}"  # noqa: S608 - names of SETTINGS
    return await pool.fetchrow(statement, token_key(id_token), *changes.values())
