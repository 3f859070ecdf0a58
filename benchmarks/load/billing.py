"""What billing costs those who do not wait for it: slices of the same load with and without it, in turn."""

from __future__ import annotations

import os
import signal
import statistics
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.load.client import Fleet
from benchmarks.load.report import Row, quantiles
from benchmarks.load.system import System

EVENTS_TOPIC = "csms.session-events"
CATCH_UP_SECONDS = 60.0
CATCHING_UP = ("billing", "postgres", "kafka")
"""Who works for billing after the load has ended; the others only idle then."""
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
    """A stretch of the load, with billing or without."""

    row: Row
    """What was measured while the load went on."""
    latencies: array[float]
    cpu_seconds: dict[str, float]
    """By role, without the client's. What billing has put off until the load had ended is in it."""
    catch_up_seconds: float = 0.0
    """From the last answer until billing had read everything."""
    lag: int = 0
    """Session events that billing had not read then."""

    @property
    def answered(self) -> int:
        return max(1, len(self.latencies))

    @property
    def cpu_us(self) -> float:
        """Microseconds a message of everything but the client."""
        return sum(self.cpu_seconds.values()) / self.answered * 1e6

    @property
    def billing_us(self) -> float:
        return self.cpu_seconds.get("billing", 0.0) / self.answered * 1e6


def joined(row: Row, slices: Sequence[Slice]) -> Row:
    """Fill in a row: the rate is the median of the slices', CPU and the machine's share are means."""
    parts = [each.row for each in slices]
    row.rate = statistics.median(part.rate for part in parts)
    row.quantiles_ms = quantiles(latency for each in slices for latency in each.latencies)
    row.cpu_us = {role: statistics.fmean(part.cpu_us.get(role, 0.0) for part in parts) for role in parts[0].cpu_us}
    row.busy = statistics.fmean(part.busy for part in parts)
    row.problems += dict.fromkeys(problem for part in parts for problem in part.problems)
    return row


def comparison(without: Sequence[Slice], those_with: Sequence[Slice], *, is_closed: bool) -> list[str]:
    """What billing takes, of pairs of slices without and with it."""
    notes = []
    if is_closed:
        rate = statistics.median(each.row.rate for each in without)
        ratio = statistics.median(each.row.rate for each in those_with) / rate
        pairs = [b.row.rate / a.row.rate for a, b in zip(without, those_with, strict=True)]
        notes += [
            f"{ratio:.3f} of the rate without it (medians of {len(pairs)} slices each; by pairs"
            f" {_span(pairs, '.3f')}, median {statistics.median(pairs):.3f})",
        ]
    else:
        for place, level in ((0, "p50"), (2, "p99")):
            before, after = (
                statistics.median(each.row.quantiles_ms[place] for each in slices) for slices in (without, those_with)
            )
            notes.append(f"{level} {after:.1f} ms, {before:.1f} without it (medians of {len(without)} slices each)")
    cpu, cpu_with = (statistics.median(each.cpu_us for each in slices) for slices in (without, those_with))
    lags, waits = ([float(each.lag) for each in those_with], [each.catch_up_seconds for each in those_with])
    return [
        *notes,
        f"behind by {_span(lags, ',.0f')} events when the load ended, caught up after {_span(waits, '.1f')} s",
        f"with that {cpu_with:.0f} us of CPU for each message, {cpu:.0f} without billing;"
        f" {statistics.median(each.billing_us for each in those_with):.0f} are its own",
    ]


def _span(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


class Billing:
    """The billing of a system, which can be stopped and let go on."""

    def __init__(self, system: System, connection: asyncpg.Connection[asyncpg.Record], consumer: Any) -> None:
        self._system = system
        self._connection = connection
        self._consumer = consumer
        self._stopped: list[int] = []

    def stop(self) -> None:
        """Let it do nothing (SIGSTOP)."""
        self._stopped = self._system.pids("billing")
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
