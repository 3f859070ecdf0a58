"""What billing costs those who do not wait for it: slices of the same load with and without it, in turn."""

from __future__ import annotations

import math
import os
import signal
import statistics
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.load.client import Fleet
from benchmarks.load.report import Row, quantiles
from benchmarks.load.system import System

EVENTS_TOPIC = "csms.session-events"
CATCH_UP_SECONDS = 60.0
CONFIGURED_SECONDS = 8.0
"""Services look for other tariffs every five seconds, and an assignment takes effect a second after it was made."""
TARIFF: dict[str, Any] = {
    "currency": "EUR",
    "tax_included": "NO",
    "elements": [
        {
            "price_components": [{"type": "ENERGY", "price": 0.45, "vat": 20, "step_size": 1}],
            "restrictions": {"start_time": "07:00", "end_time": "21:00"},
        },
        {
            "price_components": [
                {"type": "ENERGY", "price": 0.29, "vat": 20, "step_size": 1},
                {"type": "TIME", "price": 0.6, "vat": 20, "step_size": 60},
                {"type": "FLAT", "price": 0.5, "vat": 20, "step_size": 1},
            ]
        },
    ],
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A short stretch of the load, with billing or without."""

    row: Row
    latencies: array[float]


def joined(row: Row, slices: Sequence[Slice]) -> Row:
    """Fill in a row: the rate is the median of the slices', CPU and the machine's share are means."""
    parts = [each.row for each in slices]
    row.rate = statistics.median(part.rate for part in parts)
    row.quantiles_ms = quantiles(latency for each in slices for latency in each.latencies)
    row.cpu_us = {role: statistics.fmean(part.cpu_us.get(role, 0.0) for part in parts) for role in parts[0].cpu_us}
    row.busy = statistics.fmean(part.busy for part in parts)
    row.problems += dict.fromkeys(problem for part in parts for problem in part.problems)
    return row


@dataclass(slots=True)
class Comparison:
    """Slices without and with billing, in pairs, and what all of it took until billing had read everything.

    What comes in the slices without billing is read by it while no load runs.
    """

    without: list[Slice] = field(default_factory=list)
    those_with: list[Slice] = field(default_factory=list)
    answered: int = 0
    lag: int = 0
    """Session events that billing had not read when the load ended."""
    catch_up_seconds: float = 0.0
    """From then until it had."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By role, from the first slice until then."""

    def notes(self, *, is_closed: bool) -> list[str]:
        """What billing takes."""
        own = self.cpu_seconds.get("billing", 0.0) / max(1, self.answered) * 1e6
        return [
            *(self._rates() if is_closed else self._latencies()),
            f"{own:.0f} us of billing's CPU for each message in the end, for it was behind by {self.lag:,} events and"
            f" caught up in {self.catch_up_seconds:.1f} s",
        ]

    def _rates(self) -> list[str]:
        without, those = ([each.row.rate for each in slices] for slices in (self.without, self.those_with))
        pairs = [b / a for a, b in zip(without, those, strict=True)]
        error = statistics.stdev(pairs) / math.sqrt(len(pairs))
        return [
            f"{statistics.fmean(pairs):.3f} ± {error:.3f} of the rate without it (mean of {len(pairs)} pairs of slices"
            f" and its standard error; {statistics.median(those) / statistics.median(without):.3f} by medians)"
        ]

    def _latencies(self) -> list[str]:
        found = []
        for place, level in ((0, "p50"), (2, "p99")):
            before, after = (
                statistics.median(each.row.quantiles_ms[place] for each in slices)
                for slices in (self.without, self.those_with)
            )
            found.append(
                f"{level} {after:.1f} ms, {before:.1f} without it (medians of {len(self.without)} slices each)"
            )
        return found


class Billing:
    """The billing of a system, which can be stopped and let go on."""

    def __init__(self, system: System, connection: asyncpg.Connection[asyncpg.Record], consumer: Any) -> None:
        self._system = system
        self._connection = connection
        self._consumer = consumer
        self._stopped: list[int] = []

    def stop(self) -> None:
        """Let it do nothing (SIGSTOP)."""
        if not self._stopped:
            self._stopped = [
                entry.pid for entry in self._system.run.services if entry.service == "billing" and entry.pid
            ]
            for pid in self._stopped:
                os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work."""
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._stopped = []

    async def lag(self) -> int:
        """How many session events it has not read."""
        rows = await self._connection.fetch(
            "SELECT partition, coalesce((offsets->>$1)::bigint, 0) AS read FROM stream.progress"
            " WHERE group_name = 'billing'",
            EVENTS_TOPIC,
        )
        ends = await self._consumer.end_offsets([TopicPartition(EVENTS_TOPIC, row["partition"]) for row in rows])
        return int(sum(ends.values()) - sum(row["read"] for row in rows))

    async def caught_up(self, fleet: Fleet) -> float:
        """Wait until it has read everything, while stations listen; returns the seconds."""
        began = time.perf_counter()
        while lag := await self.lag():
            if time.perf_counter() - began > CATCH_UP_SECONDS:
                raise TimeoutError(f"billing is behind by {lag} events after {CATCH_UP_SECONDS:g} s")
            await fleet.listen(0.05)
        return time.perf_counter() - began


@asynccontextmanager
async def billing_of(system: System) -> AsyncIterator[Billing]:
    """Billing, going on in the end whatever happens."""
    consumer = AIOKafkaConsumer(bootstrap_servers=system.run.kafka.url, group_id=None)
    await consumer.start()
    try:
        async with system.database() as connection:
            billing = Billing(system, connection, consumer)
            try:
                yield billing
            finally:
                billing.go_on()
    finally:
        await consumer.stop()


async def configure(system: System, name: str) -> None:
    """A site of this name with a tariff of two prices by the clock, one of them with a fee and with time."""
    headers = {"Authorization": f"Bearer {system.run.admin_key}"}
    wanted = {
        "/v1/tariffs": TARIFF | {"id": name},
        "/v1/sites": {"site_id": name, "time_zone": "Europe/Zurich", "country_code": "CH"},
        "/v1/tariff-assignments": {"tariff_id": name, "scope": "site", "subject": name},
    }
    async with aiohttp.ClientSession(system.run.api_url, headers=headers) as http:
        for path, body in wanted.items():
            async with http.post(path, json=body) as response:
                if response.status >= 300:
                    raise RuntimeError(f"POST {path}: {response.status} {(await response.text())[:300]}")
