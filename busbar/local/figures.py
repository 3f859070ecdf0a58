"""Figures of a running stack, read from the services' own metrics and from PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """What the live view shows. `nan`: not known."""

    stations_online: int
    messages_per_second: float
    """CALLs, answers and commands, both directions."""
    active_sessions: int | None
    energy_kwh: float | None
    """Of all sessions in the database."""
    reply_p99_ms: float
    """Of the CALLs answered since the last look."""
    lag_records: int
    """Records that processors have not read yet."""
    dead_letters: int
    late_replies: int
    """Answers that the edge gave in an owner's place."""
    unreachable: tuple[str, ...]
    """Services whose metrics do not answer."""


@dataclass(slots=True)
class Scrape:
    """The metrics of several processes at one time, added up."""

    values: dict[tuple[str, Labels], float] = field(default_factory=lambda: defaultdict(float))

    def add(self, text: str, names: Container[str] | None = None) -> None:
        """Add one process's `/metrics`.

        Args:
            names: Of the samples to take; all unless given. To read a line takes long, and most are of no interest
                to who looks for a few figures.
        """
        if names is not None:
            text = "".join(line for line in text.splitlines(True) if _name(line) in names and not _adds_nothing(line))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.values[sample.name, tuple(sorted(sample.labels.items()))] += sample.value

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over all its labels but those given."""
        wanted = set(labels.items())
        return sum(value for (found, at), value in self.values.items() if found == name and wanted <= set(at))

    def buckets(self, name: str) -> dict[float, float]:
        """A histogram's cumulative counts by upper bound, added up over its labels."""
        found: dict[float, float] = defaultdict(float)
        for (metric, labels), value in self.values.items():
            if metric == f"{name}_bucket":
                found[float(dict(labels)["le"])] += value
        return dict(found)


def _name(line: str) -> str:
    return line.split("{", 1)[0].split(" ", 1)[0]


def _adds_nothing(line: str) -> bool:
    """A zero; but one in a histogram is a bound."""
    return line.endswith(" 0.0\n") and "_bucket{" not in line


def quantile(share: float, before: Mapping[float, float], now: Mapping[float, float]) -> float:
    """A quantile of what a histogram has counted between two scrapes, interpolated as PromQL does; `nan` if nothing."""
    counts = [(bound, now[bound] - before.get(bound, 0.0)) for bound in sorted(now)]
    if not counts or counts[-1][1] <= 0:
        return math.nan
    rank = share * counts[-1][1]
    lower_bound, lower_count = 0.0, 0.0
    for bound, count in counts:
        if count >= rank:
            if math.isinf(bound):
                return lower_bound
            inside = count - lower_count
            return lower_bound + (bound - lower_bound) * ((rank - lower_count) / inside if inside else 1.0)
        lower_bound, lower_count = bound, count
    return math.nan


class Collector:
    """Reads the figures of a stack again and again.

    Args:
        metrics_urls: By the name of the process.
        database_url: For what only the tables know.
    """

    def __init__(self, metrics_urls: Mapping[str, str], database_url: str) -> None:
        self._urls = dict(metrics_urls)
        self._database_url = database_url
        self._http: aiohttp.ClientSession | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._last: Scrape | None = None
        self._last_at = 0.0

    async def collect(self) -> Figures:
        """The figures of now; rates and quantiles are of the time since the last call."""
        (scrape, unreachable), (sessions, energy) = await asyncio.gather(self._scrape(), self._query())
        now = time.monotonic()
        figures = summarize(scrape, self._last, now - self._last_at, sessions, energy, unreachable)
        self._last, self._last_at = scrape, now
        return figures

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        if self._connection is not None:
            self._connection.terminate()

    async def _scrape(self) -> tuple[Scrape, tuple[str, ...]]:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))
        texts = await asyncio.gather(*(_get(self._http, url) for url in self._urls.values()))
        scrape = Scrape()
        for text in texts:
            scrape.add(text or "", _SHOWN)
        return scrape, tuple(name for name, text in zip(self._urls, texts, strict=True) if text is None)

    async def _query(self) -> tuple[int | None, float | None]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(
                    self._database_url, timeout=2, command_timeout=2, server_settings={"statement_timeout": "1500"}
                )
            row = await self._connection.fetchrow(
                "SELECT count(*) FILTER (WHERE is_open) AS open, coalesce(sum(energy_wh), 0) / 1000 AS kwh"
                " FROM sessions.transactions"
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None, None
        return (None, None) if row is None else (int(row["open"]), float(row["kwh"]))


def summarize(
    scrape: Scrape,
    last: Scrape | None,
    seconds: float,
    sessions: int | None,
    energy_kwh: float | None,
    unreachable: Iterable[str] = (),
) -> Figures:
    """Figures of two scrapes that lie `seconds` apart."""
    before = last or Scrape()
    frames = [scrape.total(name) - before.total(name) for name in _FRAMES]
    rate = max(sum(frames), 0.0) / seconds if last is not None and seconds > 0 else math.nan
    replies = scrape.buckets(_REPLY_SECONDS)
    p99 = quantile(0.99, before.buckets(_REPLY_SECONDS), replies) if last is not None else math.nan
    return Figures(
        stations_online=int(scrape.total(_CONNECTIONS)),
        messages_per_second=rate,
        active_sessions=sessions,
        energy_kwh=energy_kwh,
        reply_p99_ms=p99 * 1000,
        lag_records=int(scrape.total(_LAG)),
        dead_letters=int(scrape.total(_DEAD_LETTERS)),
        late_replies=int(scrape.total(_OUTCOMES, outcome="late")),
        unreachable=tuple(unreachable),
    )


_FRAMES = ("csms_edge_received_frames_total", "csms_edge_sent_frames_total")
_REPLY_SECONDS = "csms_edge_reply_seconds"
_CONNECTIONS = "csms_edge_connections"
_OUTCOMES = "csms_edge_frames_total"
_LAG = "csms_stream_lag_records"
_DEAD_LETTERS = "csms_stream_dead_letters_total"
_SHOWN = frozenset((*_FRAMES, f"{_REPLY_SECONDS}_bucket", _CONNECTIONS, _OUTCOMES, _LAG, _DEAD_LETTERS))
"""The samples that `summarize` reads."""


async def _get(http: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with http.get(url) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None
