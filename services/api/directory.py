"""What commands need to know of stations, looked up for many requests at once and remembered for a moment."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from services.api.core import KnownStation

FIND_STATIONS = """
SELECT wanted.station_id, s.ocpp_version AS pinned_version, c.ocpp_version AS last_version,
    coalesce(c.online, false) AS online
FROM unnest($1::text[]) AS wanted(station_id)
LEFT JOIN config.stations AS s ON s.station_id = wanted.station_id
LEFT JOIN router.connections AS c ON c.station_id = wanted.station_id
WHERE s.station_id IS NOT NULL OR c.station_id IS NOT NULL
"""

_LIMIT = 50_000


class StationDirectory:
    """Finds stations; requests that come while a query is under way share the next one.

    Args:
        cache_seconds: How long an answer is good for.
    """

    def __init__(self, pool: asyncpg.Pool[Any], cache_seconds: float) -> None:
        self._pool = pool
        self._cache_seconds = cache_seconds
        self._cache: dict[str, tuple[float, KnownStation | None]] = {}
        self._wanted: dict[str, asyncio.Future[KnownStation | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, station_id: str) -> KnownStation | None:
        """The station, if it is registered or has ever connected."""
        cached = self._cache.get(station_id)
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        future = self._wanted.get(station_id)
        if future is None:
            future = self._wanted[station_id] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up())
        return await asyncio.shield(future)

    def forget(self, station_id: str) -> None:
        """Look it up again next time: its settings have changed."""
        self._cache.pop(station_id, None)

    async def _look_up(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                rows = await self._pool.fetch(FIND_STATIONS, list(wanted))
            except Exception as error:  # whoever waits gets it
                for future in wanted.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # its waiter may have gone
                continue
            found = {row["station_id"]: KnownStation(**row) for row in rows}
            until = time.monotonic() + self._cache_seconds
            if len(self._cache) + len(wanted) > _LIMIT:
                self._cache.clear()
            for station_id, future in wanted.items():
                station = found.get(station_id)
                if station is not None:
                    self._cache[station_id] = until, station
                if not future.done():
                    future.set_result(station)
