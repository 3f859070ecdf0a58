"""Queries about sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

SETTINGS = (
    "name",
    "time_zone",
    "country_code",
    "postal_code",
    "city",
    "address",
    "latitude",
    "longitude",
    "party_id",
    "operator_country",
)
"""Columns of config.sites that the API lets people set."""

_COLUMNS = """site_id, name, time_zone, country_code, postal_code, city, address, latitude, longitude, party_id,
    operator_country, created_at, updated_at"""

LIST = f"""
SELECT {_COLUMNS} FROM config.sites
WHERE site_id > $1 AND ($2::text IS NULL OR starts_with(site_id, $2))
ORDER BY site_id LIMIT $3
"""  # noqa: S608 - constants

FIND = f"SELECT {_COLUMNS} FROM config.sites WHERE site_id = $1"  # noqa: S608 - constants

CREATE = f"""
INSERT INTO config.sites (site_id, name, time_zone, country_code, postal_code, city, address, latitude, longitude,
    party_id, operator_country)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (site_id) DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608 - constants

DELETE = """
DELETE FROM config.sites WHERE site_id = $1
    AND NOT EXISTS (SELECT FROM config.stations WHERE config.stations.site_id = $1)
RETURNING site_id
"""


async def update_site(pool: asyncpg.Pool[Any], site_id: str, changes: Mapping[str, Any]) -> asyncpg.Record | None:
    """Set columns of `SETTINGS` and return the site, if there is one."""
    assert set(changes) <= set(SETTINGS)
    assignments = "".join(f"{name} = ${index}, " for index, name in enumerate(changes, 2))
    statement = f"UPDATE config.sites SET {assignments}updated_at = now() WHERE site_id = $1 RETURNING {_COLUMNS}"  # noqa: S608 - names of SETTINGS
    return await pool.fetchrow(statement, site_id, *changes.values())
