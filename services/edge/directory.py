"""The stations that may connect: rows of `config.stations`, read for all waiting handshakes at once and kept briefly.

When Postgres is away, a station that was seen before goes on with what is remembered of it; the others wait outside.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import asyncpg

from busbar.ocpp.versions import Version
from busbar.postgres import DATABASE_ERRORS, connect_pool
from services.edge.handshake import StationSettings

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 200_000
BATCH = 1_000
QUERY_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""After a failed query, handshakes are told so at once for this long."""

_STATIONS = """
SELECT station_id, password_hash, security_profile, ocpp_version, max_frame_bytes, ping_interval_seconds, enabled
FROM config.stations
WHERE station_id = ANY($1::text[])
"""

Found = StationSettings | None
"""`None`: there is no such station."""


class Unavailable(Exception):  # noqa: N818
    """Postgres is away and the station is not remembered."""


Answer = Callable[[Found | Unavailable], None]


class Source(Protocol):
    """Where settings are read; raises one of `DATABASE_ERRORS` when it is away."""

    async def read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]: ...


class PostgresSource:
    """Reads `config.stations`. Connects when it is first asked, so that the edge starts without Postgres too."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]:
        """See `Source.read`."""
        if self._pool is None:
            self._pool = await connect_pool(self._database_url, service="edge", max_size=2)
        rows = await self._pool.fetch(_STATIONS, list(station_ids))
        return {row["station_id"]: _settings(row) for row in rows}

    async def close(self) -> None:
        """Disconnect, within two seconds."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 2.0)
            except TimeoutError:
                self._pool.terminate()


def _settings(row: Any) -> StationSettings:
    return StationSettings(
        station_id=row["station_id"],
        password_hash=row["password_hash"],
        security_profile=row["security_profile"],
        version=Version(row["ocpp_version"]) if row["ocpp_version"] else None,
        max_frame_bytes=row["max_frame_bytes"],
        ping_interval_seconds=row["ping_interval_seconds"],
        enabled=row["enabled"],
    )


class StationDirectory:
    """Settings of stations, from memory or in one query for all who wait.

    Args:
        fresh_seconds: How long what was read counts as current.
        clock: Monotonic seconds.
    """

    def __init__(self, source: Source, *, fresh_seconds: float, clock: Callable[[], float]) -> None:
        self.is_up = False
        """Whether the last query worked."""
        self.has_been_up = False
        self._source = source
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()
        self._waiting: dict[str, list[Answer]] = {}
        self._wake = asyncio.Event()
        self._failed_at = -RETRY_SECONDS
        self._is_reported = False
        self._left: set[asyncio.Future[Any]] = set()
        """Readings that were given up, and have not ended yet."""

    def recent(self, station_id: str) -> tuple[bool, Found]:
        """Whether the station was read not long ago, and what was found then."""
        known = self._known.get(station_id)
        if known is None or self._clock() - known[0] >= self._fresh_seconds:
            return False, None
        return True, known[1]

    def request(self, station_id: str, answer: Answer) -> None:
        """Have the station read; `answer` is called once, on the loop."""
        if self._clock() - self._failed_at < RETRY_SECONDS:
            answer(self._remembered(station_id))
            return
        self._waiting.setdefault(station_id, []).append(answer)
        self._wake.set()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = dict(list(self._waiting.items())[:BATCH])
                for station_id in batch:
                    del self._waiting[station_id]
                await self._answer(batch)

    async def probe(self) -> None:
        """Find out whether Postgres answers, for readiness: until it has done so once, nobody is sent here to ask."""
        while await self._read([]) is None:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(RETRY_SECONDS)

    async def _answer(self, batch: Mapping[str, list[Answer]]) -> None:
        rows = await self._read(batch)
        for station_id, answers in batch.items():
            if rows is None:
                found: Found | Unavailable = self._remembered(station_id)
            else:
                found = rows.get(station_id)
                self._remember(station_id, found)
            for answer in answers:
                answer(found)

    async def _read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings] | None:
        try:
            rows = await self._read_in_time(station_ids)
        except DATABASE_ERRORS as error:
            if not self._is_reported:
                logger.error("stations cannot be read from Postgres", extra={"error": repr(error)})
            self.is_up, self._is_reported = False, True
            self._failed_at = self._clock()
            return None
        if self._is_reported:
            logger.info("stations can be read again")
        self.is_up, self.has_been_up, self._is_reported = True, True, False
        return rows

    async def _read_in_time(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]:
        """Read, but wait no longer than stations at the door have patience.

        Where Postgres hangs, giving its connection back hangs as well: that ends by itself, and nobody waits for it.
        """
        reading = asyncio.ensure_future(self._source.read(station_ids))
        try:
            done, _ = await asyncio.wait((reading,), timeout=QUERY_SECONDS)
        finally:
            if not reading.done():
                self._left.add(reading)
                reading.add_done_callback(self._forget)
                reading.cancel()
        if not done:
            raise TimeoutError(f"no answer within {QUERY_SECONDS:g} s")
        return reading.result()

    def _forget(self, reading: asyncio.Future[Any]) -> None:
        self._left.discard(reading)
        if not reading.cancelled():
            reading.exception()  # nobody else asks

    def _remember(self, station_id: str, found: Found) -> None:
        self._known[station_id] = (self._clock(), found)
        self._known.move_to_end(station_id)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _remembered(self, station_id: str) -> Found | Unavailable:
        """What is remembered of a station, however old; nothing is concluded from not having found it then."""
        known = self._known.get(station_id)
        if known is None or known[1] is None:
            return Unavailable()
        return known[1]
