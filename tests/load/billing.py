"""What load scripts on billing share: configuring tariffs over HTTP, and what the tables say in the end."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from busbar.local.runfile import RunFile
from busbar.pricing.jsontext import serialize_json

CONFIGURED_SECONDS = 8.0
"""Services look for other tariffs every five seconds, and an assignment takes effect a second after it was made."""

FOUND = """
SELECT s.station_id, s.transaction_id, s.status, s.reason, s.cost_excl, s.cost_incl, s.started_at, s.cdr_count,
       s.energy_wh,
       (SELECT sum(c.total_excl) FROM billing.cdrs c WHERE c.session_id = s.session_id) AS net_excl,
       (SELECT sum(c.total_incl) FROM billing.cdrs c WHERE c.session_id = s.session_id) AS net_incl
  FROM billing.sessions s
 WHERE s.station_id = ANY($1::text[]) AND s.status <> 'joined'
"""


@dataclass(frozen=True, slots=True)
class Charged:
    """A session as billing has it."""

    station_id: str
    transaction_id: str
    status: str
    reason: str | None
    started_ms: int
    records: int
    energy_wh: Decimal
    excl: Decimal | None
    """The sum of all its records."""
    incl: Decimal | None


def post(run: RunFile, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Have the API create something. Raises `RuntimeError` with what it says against it."""
    headers = {"Authorization": f"Bearer {run.admin_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(run.api_url + path, serialize_json(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            document: dict[str, Any] = json.loads(response.read())
            return document
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"POST {path}: {error.code} {error.read().decode()[:500]}") from None


async def charged(url: str, stations: Sequence[str], count: int, seconds: float = 120.0) -> list[Charged]:
    """The sessions of these stations once billing has so many that are over, or what there is when the time is up."""
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + seconds
    try:
        while True:
            rows = await connection.fetch(FOUND, list(stations))
            over = [row for row in rows if row["status"] != "open"]
            if (len(over) == len(rows) == count) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
    finally:
        await connection.close()
    return [
        Charged(
            row["station_id"],
            row["transaction_id"],
            row["status"],
            row["reason"],
            int(row["started_at"].timestamp() * 1000) if row["started_at"] else 0,
            row["cdr_count"],
            row["energy_wh"],
            row["net_excl"],
            row["net_incl"],
        )
        for row in rows
    ]
